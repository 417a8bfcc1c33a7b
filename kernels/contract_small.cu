// out[b,m,n] = sum_k src0[b,m,k] * src1[b,k,n]: as contract, for pairs that are bound by memory. A thread makes few
// results, so that half as many threads again have loads under way.
//
// Launch: as contract's.
// Moves what contract moves. On H200, where a copy runs at 4.3 TB/s: `ab,bc->ac` of 2.7e8 by 2 by 2 in float32 moves
// 4.3 GB, in 1.0 ms at the least.
using Sum = typename Accumulator<In>::type;
constexpr int WORDS = sizeof(Sum) < 4 ? 1 : sizeof(Sum) / 4;  // of 4 bytes
constexpr int DOWN = WORDS < 4 ? 1 : 2, ACROSS = WORDS < 2 ? 4 : 2;  // results of a thread, at the most: packs, columns
constexpr int LEFT = sizeof(In) < 2 ? 8 : 16 / WORDS;  // loads of a thread that are under way, of either array
constexpr int RIGHT = 4 / WORDS;
constexpr int SHARED_BYTES = 20 << 10, MAX_LINES = 768, BLOCKS = WORDS < 4 ? 3 : 2;
