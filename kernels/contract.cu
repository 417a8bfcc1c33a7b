// out[b,m,n] = sum_k src0[b,m,k] * src1[b,k,n], where b, m, n and k are any number of axes each, of any strides: the
// pair by tiles that are gathered from where they lie, as in `abf,eadcb->cfde`. A block brings a tile of both arrays to
// shared memory, neighbouring threads reading neighbours; each thread makes a few of the tile's results in registers;
// these go through shared memory to where they belong. Bit n of `conjugated` makes src n its complex conjugate; real
// types ignore it.
//
// Threads that results alone would leave idle share the sum: `lanes` of them, added up in a fixed tree. With chunks > 1
// the tiles of the sum are cut into that many runs, and out[c * outputs + ..] receives run c alone, to be added up by a
// second launch. So any grid gives the same bits.
//
// Launch: any 1-D grid of 256 threads, one tile of results per block at a time.
// Moves each array once for each tile of the other array's own axes (src1 where it is the same for all tiles once a
// block), and outputs * chunks * sizeof(Out) bytes, in 2 * b * m * n * k operations. On H200, where a copy runs at 4.3
// TB/s: `abf,eadcb->cfde` of 20 and 1.0e9 elements with 2.0e8 results in float32 moves 4.8 GB, in 1.1 ms at the least.
// A thread makes many results, for products that are bound by arithmetic: few threads, many registers.
using Sum = typename Accumulator<In>::type;
constexpr int WORDS = sizeof(Sum) < 4 ? 1 : sizeof(Sum) / 4;  // of 4 bytes
constexpr int DOWN = WORDS < 4 ? 2 : 4, ACROSS = WORDS < 4 ? 4 : 2;  // results of a thread, at the most: packs, columns
constexpr int LEFT = 16 / WORDS, RIGHT = 8 / WORDS;  // loads of a thread that are under way, of either array
constexpr int SHARED_BYTES = 32 << 10, MAX_LINES = 1024, BLOCKS = 2;
