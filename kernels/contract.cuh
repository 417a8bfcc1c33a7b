// The kernel of contract.cu and contract_small.cu, which say how much each thread does.
constexpr int WIDTH = sizeof(Sum) < 4 ? 4 : WIDE<Sum>;  // elements that one access brings from shared memory
constexpr int CAPACITY = SHARED_BYTES / (4 * WORDS), WARP = 32;
// Lines of a part that are gone over together.
constexpr int GROUP = 4, LEFT_GROUP = LEFT % 4 == 0 ? 4 : LEFT % 2 == 0 ? 2 : 1, RIGHT_GROUP = RIGHT % 2 == 0 ? 2 : 1;

// The order in which threads go over a tile as an array has it: `columns` neighbours in each of `lines`, of which `step`
// are gone over at once, by a thread `each` in turn, a multiple of GROUP. The loops first .. middle - 1 of the nest run
// over lines, middle .. end - 1 over columns. The lines' places begin at `begin` of the block's list, those of a thread
// `pitch` apart from the next one's.
struct OrderOf {
  long long columns, lines, step, each, first, middle, end, begin, pitch;
};

// The loops of the nest: those over tiles, of b, m, n and k in turn, with strides in src0, src1 and out; then those over a
// tile as src0, src1 and out have it, with strides in the array, in shared memory, and along the summed axis whose last
// tile is shorter, if there is one.
struct ContractOf {
  Nest<3> nest;
  long long loops, result_loops;                    // of those over tiles: all; those that are not summed
  long long below[WARP], extent[WARP], last[WARP];  // of each, as in `Loop`; `below` as a reciprocal
  long long steps, rest;                            // tiles along the sum; elements of the last one along that axis
  OrderOf order[3];
  long long depth, lanes, team, across, down;  // summed elements of a tile; threads along it; of a lane; along each
  long long rows, columns;                      // of results of a thread: packs, elements
  long long pitch[3], begin[3];                 // in shared memory: of a summed element, of a column of results
  long long keeps;                              // whether src1's tile stays while tiles change
  long long slots, run, chunks;                 // tiles of results; those along the sum of a chunk; chunks
  long long outputs, conjugated;
};

// Where an element lies in its array and in shared memory.
struct alignas(8) Place {
  int array, tile;
};

// The places of all lines, and how far they lie along the summed axis whose last tile is shorter.
struct List {
  Place places[MAX_LINES];
  unsigned short along[MAX_LINES];
};

__device__ inline Place place_of(const ContractOf& job, long long first, long long end, int index, int& along) {
  Offsets<3> at{};
  descend(at, job.nest, static_cast<int>(first), static_cast<int>(end) - 1, index);
  along = static_cast<int>(at.of[2]);
  return {static_cast<int>(at.of[0]), static_cast<int>(at.of[1])};
}

// A thread's part of a tile: one column, and so many `lines`, none if the thread is left over. In the list they are
// rounded up to whole groups, by the thread's first one.
struct Part {
  int array, tile, lines, along;
  const Place* places;

  __device__ Part(const ContractOf& job, int number, List& list) {
    const OrderOf& order = job.order[number];
    const int thread = static_cast<int>(threadIdx.x), columns = static_cast<int>(order.columns);
    const int step = static_cast<int>(order.step), each = static_cast<int>(order.each), first = thread / columns;
    const Place column = place_of(job, order.middle, order.end, thread - first * columns, along);
    array = column.array;
    tile = column.tile + static_cast<int>(job.begin[number]);
    lines = first < step ? (static_cast<int>(order.lines) - first + step - 1) / step : 0;
    places = list.places + order.begin + (lines ? first * static_cast<int>(order.pitch) : 0);
    for (int n = thread; n < step * each; n += MAX_THREADS) {
      const int other = n / each, line = other + n % each * step;
      const long long at = order.begin + other * order.pitch + n % each;
      int further;
      list.places[at] = place_of(job, order.first, order.middle, line < order.lines ? line : other, further);
      list.along[at] = static_cast<unsigned short>(further);
    }
  }
};

// How a block's threads share a tile's results and sums, as the launch says: each has packs of rows, `down` threads
// apart, and a few columns, and the summed elements lane, lane + lanes, ...
struct Share {
  int lane, x, rows, columns, results;  // and where its rows, columns and results begin in shared memory

  __device__ Share(const ContractOf& job) {
    const int down = static_cast<int>(job.down), across = static_cast<int>(job.across);
    const int team = static_cast<int>(job.team), thread = static_cast<int>(threadIdx.x);
    lane = thread / team;
    const int rank = thread - lane * team, y = rank % down, b = rank / (down * across);
    x = rank / down % across;
    rows = static_cast<int>(job.begin[0] + b * job.depth * job.pitch[0]) + y * WIDTH;
    columns = static_cast<int>(job.begin[1] + b * job.depth * job.pitch[1]);
    results = static_cast<int>(job.begin[2] + b * across * job.columns * job.pitch[2]) + y * WIDTH;
  }
};

using Packed = Pack<Sum, WIDTH>;
using Sums = Packed[ACROSS][DOWN];

template <int DOWN_, int ACROSS_>
struct Results {
  static constexpr int PACKS = ACROSS_ < WIDTH ? 1 : ACROSS_ / WIDTH;

  // Of the thread's column j: those that lie in one pack are neighbours.
  static __device__ int column(const ContractOf& job, const Share& share, int j) {
    const int across = static_cast<int>(job.across);
    return ACROSS_ < WIDTH ? j * across + share.x : (j / WIDTH * across + share.x) * WIDTH + j % WIDTH;
  }

  // Adds the products of the tiles.
  static __device__ void multiply(const ContractOf& job, const Share& share, const Sum* tile, Sums& sums) {
    const int lanes = static_cast<int>(job.lanes), depth = static_cast<int>(job.depth);
    const int row_pitch = static_cast<int>(job.pitch[0]), column_pitch = static_cast<int>(job.pitch[1]);
    const int down = static_cast<int>(job.down) * WIDTH, across = static_cast<int>(job.across);
    const Sum* rows = tile + share.rows + share.lane * row_pitch;
    const Sum* columns = tile + share.columns + column(job, share, 0) + share.lane * column_pitch;
#pragma unroll 1
    for (int k = share.lane < lanes ? share.lane : depth; k < depth; k += lanes) {
      Packed a[DOWN_];
      Sum c[ACROSS_];
#pragma unroll
      for (int g = 0; g < DOWN_; ++g) a[g] = *reinterpret_cast<const Packed*>(rows + g * down);
      if (ACROSS_ < WIDTH) {
#pragma unroll
        for (int j = 0; j < ACROSS_; ++j) c[j] = columns[j * across];
      } else {
#pragma unroll
        for (int g = 0; g < PACKS; ++g) {
          const Packed pack = *reinterpret_cast<const Packed*>(columns + g * across * WIDTH);
#pragma unroll
          for (int w = 0; w < WIDTH; ++w) c[g * WIDTH % ACROSS_ + w % ACROSS_] = pack.of[w];
        }
      }
#pragma unroll
      for (int j = 0; j < ACROSS_; ++j) {
#pragma unroll
        for (int g = 0; g < DOWN_; ++g) {
#pragma unroll
          for (int w = 0; w < WIDTH; ++w) sums[j][g].of[w] += static_cast<Sum>(a[g].of[w] * c[j]);
        }
      }
      rows += lanes * row_pitch;
      columns += lanes * column_pitch;
    }
  }

  // Adds up the sums of all lanes, for the first of them, and stores these.
  static __device__ void store(const ContractOf& job, const Share& share, Sum* tile, Sums& sums) {
    const int team = static_cast<int>(job.team), down = static_cast<int>(job.down) * WIDTH;
    Packed* const others = reinterpret_cast<Packed*>(tile + job.begin[2]) + threadIdx.x;
    for (int left = static_cast<int>(job.lanes); left > 1;) {  // those of the upper half are added to the lower
      const int half = (left + 1) / 2;
      if (share.lane >= half && share.lane < left) {
#pragma unroll
        for (int i = 0; i < DOWN_ * ACROSS_; ++i) {
          others[i * (MAX_THREADS / 2) - half * team] = sums[i / DOWN_][i % DOWN_];
        }
      }
      __syncthreads();
      if (share.lane + half < left) {
#pragma unroll
        for (int i = 0; i < DOWN_ * ACROSS_; ++i) sums[i / DOWN_][i % DOWN_] += others[i * (MAX_THREADS / 2)];
      }
      __syncthreads();
      left = half;
    }
    if (share.lane > 0) return;
#pragma unroll
    for (int j = 0; j < ACROSS_; ++j) {
      Sum* const at = tile + share.results + column(job, share, j) * static_cast<int>(job.pitch[2]);
#pragma unroll
      for (int g = 0; g < DOWN_; ++g) *reinterpret_cast<Packed*>(at + g * down) = sums[j][g];
    }
  }
};

// run(Results<..>()) for as many results of a thread as the launch says.
template <typename Run>
__device__ void with_results(const ContractOf& job, Run run) {
  constexpr int FEWER = DOWN > 1 ? DOWN / 2 : 1;
  if (job.rows > FEWER) {
    run(Results<DOWN, ACROSS>());
  } else if (job.columns > 2) {
    run(Results<FEWER, ACROSS>());
  } else if (job.columns == 2) {
    run(Results<FEWER, 2>());
  } else {
    run(Results<FEWER, 1>());
  }
}

// The same address in global memory, whose sum the compiler cannot take apart again.
template <typename T>
__device__ T* opaque(T* address) {
#ifdef __CUDACC__
  asm("" : "+l"(address));
  __builtin_assume(__isGlobal(address));
#endif
  return address;
}

// Which elements of a part the last tile along the sum has, if it is shorter: then it is at an EDGE.
template <bool EDGE>
struct Inside {
  const unsigned short* lines;
  int most;

  __device__ Inside(const List& list, const Part& part, long long rest)
      : lines(list.along + (part.places - list.places)), most(static_cast<int>(rest) - part.along) {}

  __device__ bool has(int line) const { return !EDGE || lines[line] < most; }
};

// Begins to load a thread's part of a tile. What is not inside is loaded from where the tile begins: so no jump stands
// between the loads.
template <int GROUP, bool EDGE, int LOADS>
__device__ void load_part(In (&held)[LOADS], const Part& part, const In* from, const Inside<EDGE>& inside) {
  from += part.array;
#pragma unroll
  for (int first = 0; first < LOADS; first += GROUP) {
    if (first >= part.lines) break;
    int offset[GROUP];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) offset[n] = part.places[first + n].array;
#pragma unroll
    for (int n = 0; n < GROUP; ++n) held[first + n] = from[inside.has(first + n) ? offset[n] : -part.array];
  }
}

// Stores a part that was loaded so to shared memory, zeros for what is not inside.
template <int GROUP, bool EDGE, int LOADS>
__device__ void store_part(Sum* tile, const Part& part, const In (&held)[LOADS], bool conjugated,
                           const Inside<EDGE>& inside) {
  tile += part.tile;
#pragma unroll
  for (int first = 0; first < LOADS; first += GROUP) {
    if (first >= part.lines) break;
    int place[GROUP];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) place[n] = part.places[first + n].tile;
#pragma unroll
    for (int n = 0; n < GROUP; ++n) {
      const Sum value = inside.has(first + n) ? static_cast<Sum>(held[first + n]) : Sum{};
      tile[place[n]] = conjugated ? conjugate(value) : value;
    }
  }
}

// Writes a part of the results.
__device__ inline void write_part(Out* to, const Sum* tile, const Part& part) {
  to += part.array;
  tile += part.tile;
#pragma unroll 1
  for (int first = 0; first < part.lines; first += GROUP) {
    Place place[GROUP];
    Sum value[GROUP];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) place[n] = part.places[first + n];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) value[n] = tile[place[n].tile];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) {
      if (first + n < part.lines) to[place[n].array] = static_cast<Out>(value[n]);
    }
  }
}

template <bool VALUE>
struct Constant {
  static constexpr bool value = VALUE;
};

// run(Constant<..>()) says whether tiles are at the edge.
template <typename Run>
__device__ void with_edge(bool is_edge, Run run) {
  if (is_edge) {
    run(Constant<true>());
  } else {
    run(Constant<false>());
  }
}

// Where the tiles of one turn of a block begin in src0, src1 and out; whether they are at the edge of the sum; whether
// the turn is the last of its results.
struct Turn {
  long long at[3];
  int edge;
  bool ends;
};

// A turn brings one tile of src0 and src1: `step` along the sum, of the results and the run that `slot` counts.
struct Counter {
  int slot, step, end;

  __device__ Counter(const ContractOf& job, int slot_) : slot(slot_) { begin(job); }

  __device__ void begin(const ContractOf& job) {
    const int run = static_cast<int>(job.run), tiles = static_cast<int>(job.steps);
    step = slot / static_cast<int>(job.slots) * run;
    end = step + run < tiles ? step + run : tiles;
  }

  __device__ void advance(const ContractOf& job) {
    if (++step < end) return;
    slot += static_cast<int>(gridDim.x);
    begin(job);
  }
};

// The value of the thread that is so many further on in the warp.
__device__ inline long long further(long long value, int threads) {
  const unsigned low = __shfl_down_sync(0xffffffffu, static_cast<unsigned>(value), threads);
  return static_cast<long long>(__shfl_down_sync(0xffffffffu, static_cast<int>(value >> 32), threads)) << 32 | low;
}

// A loop over tiles: its place is (turn of the block / below) % size. Where they do not divide its axis, the last tile
// ends with the axis, and so begins `back` before its place; along the sum it is shorter instead, and at the `edge`.
struct Loop {
  long long stride[3], below, reciprocal, extent, back;  // in elements of the axis: a tile's, and those before its place
  int size, edge;

  __device__ void read(const ContractOf& job, int number) {
    const bool is_loop = number < job.loops, is_summed = number >= job.result_loops;
#pragma unroll
    for (int n = 0; n < 3; ++n) stride[n] = is_loop ? job.nest.stride[n][number] : 0;
    below = is_loop ? job.below[number] : 0;
    reciprocal = is_loop ? job.nest.reciprocal[number] : 0;
    size = is_loop ? static_cast<int>(job.nest.size[number]) : 1;
    extent = is_loop ? job.extent[number] : 0;
    back = is_loop && !is_summed ? job.last[number] : 0;
    edge = is_loop && is_summed ? static_cast<int>(job.last[number]) : 0;
  }
};

// Where a turn's tiles begin, by a warp: each of its threads goes along a loop.
__device__ inline void place_tiles(const ContractOf& job, const Counter& count, const Loop& loop, int lane, Turn& turn) {
  const int chunk = count.slot / static_cast<int>(job.slots), tiles = count.slot - chunk * static_cast<int>(job.slots);
  const unsigned whole = quotient_by(loop.below, static_cast<unsigned>(lane < job.result_loops ? tiles : count.step));
  const int place = static_cast<int>(whole - quotient_by(loop.reciprocal, whole) * static_cast<unsigned>(loop.size));
  long long at[3];
  const bool is_last = place == loop.size - 1;
#pragma unroll
  for (int n = 0; n < 3; ++n) at[n] = (place * loop.extent - (is_last ? loop.back : 0)) * loop.stride[n];
  int edge = is_last ? loop.edge : 0;
  for (int half = 16; half > 0; half /= 2) {
#pragma unroll
    for (int n = 0; n < 3; ++n) at[n] += further(at[n], half);
    edge |= __shfl_down_sync(0xffffffffu, edge, half);
  }
  if (lane > 0) return;
#pragma unroll
  for (int n = 0; n < 3; ++n) turn.at[n] = at[n];
  turn.at[2] += chunk * job.outputs;
  turn.edge = edge;
  turn.ends = count.step + 1 == count.end;
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, BLOCKS)
    ENTRY(const __grid_constant__ ContractOf job, SOURCES, Out* out) {
  __shared__ Packed shared[CAPACITY / WIDTH];
  __shared__ List list;
  __shared__ Turn turns[4];  // of which three are needed: that computed, that loaded, that found
  __shared__ Loop loops[WARP];
  if (threadIdx.x < WARP) loops[threadIdx.x].read(job, static_cast<int>(threadIdx.x));
  Sum* const tile = &shared[0].of[0];
  const int thread = static_cast<int>(threadIdx.x);
  const Part left(job, 0, list), right(job, 1, list), result(job, 2, list);
  const Share share(job);

  // A block's turn: what was brought goes to shared memory; what comes next is on its way while threads compute.
  In held_left[LEFT], held_right[RIGHT];
  Sums sums = {};
  Counter next(job, static_cast<int>(blockIdx.x));
  __syncthreads();
  if (thread >= MAX_THREADS - WARP) place_tiles(job, next, loops[thread % WARP], thread % WARP, turns[0]);
  __syncthreads();
  int turn = -1;  // that is computed: -1 while the first is loaded
#pragma unroll 1
  while (true) {
    if (turn >= 0) {
      const bool brings_right = turn == 0 || !job.keeps;
      with_edge(turns[turn & 3].edge, [&](auto at_edge) {
        using Side = Inside<at_edge.value>;
        store_part<LEFT_GROUP>(tile, left, held_left, job.conjugated & 1, Side(list, left, job.rest));
        if (brings_right) {
          store_part<RIGHT_GROUP>(tile, right, held_right, job.conjugated & 2, Side(list, right, job.rest));
        }
      });
      __syncthreads();
    }
    const bool more = next.slot < job.slots * job.chunks;
    if (more) {
      const Turn& loaded = turns[(turn + 1) & 3];
      const In* const from = opaque(src0 + loaded.at[0]);
      const In* const other = opaque(src1 + loaded.at[1]);
      const bool brings_right = turn < 0 || !job.keeps;
      with_edge(loaded.edge, [&](auto at_edge) {
        using Side = Inside<at_edge.value>;
        load_part<LEFT_GROUP>(held_left, left, from, Side(list, left, job.rest));
        if (brings_right) load_part<RIGHT_GROUP>(held_right, right, other, Side(list, right, job.rest));
      });
    }
    next.advance(job);
    if (thread >= MAX_THREADS - WARP && next.slot < job.slots * job.chunks) {
      place_tiles(job, next, loops[thread % WARP], thread % WARP, turns[(turn + 2) & 3]);
    }
    if (turn >= 0) {
      with_results(job, [&](auto results) { results.multiply(job, share, tile, sums); });
      __syncthreads();
      if (turns[turn & 3].ends) {
        with_results(job, [&](auto results) { results.store(job, share, tile, sums); });
        __syncthreads();
        write_part(opaque(out + turns[turn & 3].at[2]), tile, result);
#pragma unroll
        for (int j = 0; j < ACROSS; ++j) {
#pragma unroll
          for (int g = 0; g < DOWN; ++g) sums[j][g] = Packed{};
        }
        __syncthreads();  // before the next tile overwrites what a slower thread still reads
      }
    } else {
      __syncthreads();
    }
    if (!more) break;
    ++turn;
  }
}
