// Second part of contract.cu and contract_small.cu: the products of tiles, the turns of a block, the kernel.

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
  long long stride[3], below, reciprocal;
  long long extent, back;  // elements of the axis: those of a tile, those before its place
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
__device__ inline void place_tiles(const ContractOf& job, const Counter& count, const Loop& loop, int lane,
                                   Turn& turn) {
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
