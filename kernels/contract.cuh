// Second part of contract.cu and contract_small.cu: the products of tiles, the turns of a block, the kernel.

// How a block's threads share a tile's results and sums, as the launch says: each has packs of rows, `down` threads
// apart, a few columns, and the summed elements lane, lane + lanes, ..
//
// In shared memory its rows of these begin at byte `rows`, and one `row_step` after the other as long as they lie
// before `end`; its columns likewise. Its lane, and where its results go, are in the list.
struct Share {
  unsigned rows, end, columns, row_step, column_step;

  __device__ Share(const ContractOf& job, List& list) {
    const int down = static_cast<int>(job.down), across = static_cast<int>(job.across);
    const int team = static_cast<int>(job.team), thread = static_cast<int>(threadIdx.x);
    const int lane = thread / team;
    const int rank = thread - lane * team, y = rank % down, b = rank / (down * across);
    const int x = rank / down % across * (job.columns < WIDTH ? 1 : WIDTH);
    const auto bytes = [](long long elements) { return static_cast<unsigned>(elements * sizeof(Sum)); };
    rows = bytes(job.begin[0] + (b * job.depth + lane) * job.pitch[0] + y * WIDTH);
    end = lane < job.lanes ? bytes(job.begin[0] + (b + 1) * job.depth * job.pitch[0] + y * WIDTH) : 0;
    columns = bytes(job.begin[1] + (b * job.depth + lane) * job.pitch[1] + x);
    row_step = bytes(job.lanes * job.pitch[0]);
    column_step = bytes(job.lanes * job.pitch[1]);
    const long long column = b * across * job.columns + x;
    list.lanes[thread] = static_cast<unsigned short>(lane);
    list.results[thread] = static_cast<unsigned short>(job.begin[2] + column * job.pitch[2] + y * WIDTH);
  }
};

using Sums = Packed[ACROSS][DOWN];

template <int DOWN_, int ACROSS_>
struct Results {
  static constexpr int AT_ONCE = ACROSS_ < WIDTH ? 1 : WIDTH;  // columns that are neighbours

  // Adds the products of the tiles.
  static __device__ void multiply(const ContractOf& job, const Share& share, Sum* tile, Sums& sums) {
    const unsigned down = static_cast<unsigned>(job.down * sizeof(Packed));
    const unsigned across = static_cast<unsigned>(job.across * AT_ONCE * sizeof(Sum));
    const char* const bytes = reinterpret_cast<const char*>(tile);
    const char *columns = bytes + share.columns, *const end = bytes + share.end;
#pragma unroll 1
    for (const char* rows = bytes + share.rows; rows < end; rows += share.row_step, columns += share.column_step) {
      Packed a[DOWN_];
      Pack<Sum, AT_ONCE> c[ACROSS_ / AT_ONCE];
#pragma unroll
      for (int g = 0; g < DOWN_; ++g) a[g] = *reinterpret_cast<const Packed*>(rows + g * down);
#pragma unroll
      for (int g = 0; g < ACROSS_ / AT_ONCE; ++g) {
        c[g] = *reinterpret_cast<const Pack<Sum, AT_ONCE>*>(columns + g * across);
      }
#pragma unroll
      for (int j = 0; j < ACROSS_; ++j) {
#pragma unroll
        for (int g = 0; g < DOWN_; ++g) {
#pragma unroll
          for (int w = 0; w < WIDTH; ++w) {
            sums[j][g].of[w] += static_cast<Sum>(a[g].of[w] * c[j / AT_ONCE].of[j % AT_ONCE]);
          }
        }
      }
    }
  }

  // Adds up the sums of all lanes, for the first of them, and stores these.
  static __device__ void store(const ContractOf& job, const List& list, Sum* tile, Sums& sums) {
    const int team = static_cast<int>(job.team), lane = list.lanes[threadIdx.x];
    Packed* const others = reinterpret_cast<Packed*>(tile + job.begin[2]) + threadIdx.x;
    for (int left = static_cast<int>(job.lanes); left > 1;) {  // those of the upper half are added to the lower
      const int half = (left + 1) / 2;
      if (lane >= half && lane < left) {
#pragma unroll
        for (int i = 0; i < DOWN_ * ACROSS_; ++i) {
          others[i * (MAX_THREADS / 2) - half * team] = sums[i / DOWN_][i % DOWN_];
        }
      }
      __syncthreads();
      if (lane + half < left) {
#pragma unroll
        for (int i = 0; i < DOWN_ * ACROSS_; ++i) sums[i / DOWN_][i % DOWN_] += others[i * (MAX_THREADS / 2)];
      }
      __syncthreads();
      left = half;
    }
    if (lane > 0) return;
    const unsigned results = list.results[threadIdx.x] * static_cast<unsigned>(sizeof(Sum));
    const unsigned down = static_cast<unsigned>(job.down * sizeof(Packed));
    const unsigned pitch = static_cast<unsigned>(job.pitch[2] * sizeof(Sum));
    const unsigned across = static_cast<unsigned>(job.across) * AT_ONCE * pitch;
#pragma unroll
    for (int j = 0; j < ACROSS_; ++j) {
      const unsigned column = results + j / AT_ONCE * across + j % AT_ONCE * pitch;
#pragma unroll
      for (int g = 0; g < DOWN_; ++g) at<Packed>(tile, column + g * down) = sums[j][g];
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

// A turn of a block brings one tile of src0 and src1: where they begin in src0, src1 and out; whether they are at the
// edge of the sum; whether the turn is the last of its results; whether there is such a turn.
struct Turn {
  long long at[3];
  bool edge, ends, is_any;
};
constexpr unsigned TURNS = WARP, NONE = ~0u;  // that a warp finds at once, one a thread; the number of no turn

// Adds the loops first .. end - 1 over tiles, which together stand at position `index`. Where tiles do not divide an
// axis, the last one ends with the axis, and so begins `last` elements before its place; along the sum it is shorter
// instead, and at the edge.
__device__ inline void place_tiles(const ContractOf& job, long long first, long long end, unsigned index,
                                   bool is_summed, Turn& turn) {
#pragma unroll 1
  for (int loop = static_cast<int>(end) - 1; loop >= static_cast<int>(first); --loop) {
    const int size = static_cast<int>(job.nest.size[loop]);
    const unsigned outer = quotient_by(job.nest.reciprocal[loop], index);
    const int place = static_cast<int>(index - outer * static_cast<unsigned>(size));
    const bool is_last = place == size - 1;
    const long long at = place * job.extent[loop] - (is_last && !is_summed ? job.last[loop] : 0);
#pragma unroll
    for (int n = 0; n < 3; ++n) turn.at[n] += at * job.nest.stride[n][loop];
    turn.edge = turn.edge || (is_last && is_summed && job.last[loop]);
    index = outer;
  }
}

// The block's turn of this number. Its tiles of results are every gridDim.x-th one, first those of whole chunks.
__device__ inline Turn find_turn(const ContractOf& job, unsigned number) {
  const unsigned slots = static_cast<unsigned>(job.slots), run = static_cast<unsigned>(job.run);
  const unsigned chunks = static_cast<unsigned>(job.chunks), steps = static_cast<unsigned>(job.steps);
  const unsigned whole_slots = slots * (chunks - 1), grid = gridDim.x, block = blockIdx.x;
  const unsigned whole = block < whole_slots ? (whole_slots - block + grid - 1) / grid : 0;
  const bool is_whole = number < whole * run;
  const unsigned after = is_whole ? number : number - whole * run, own = is_whole ? run : steps - run * (chunks - 1);
  const unsigned done = after / own, step = after - done * own;
  const unsigned long long slot = block + (is_whole ? done : whole + done) * static_cast<unsigned long long>(grid);
  const unsigned chunk = static_cast<unsigned>(slot) / slots;
  const bool is_any = slot < slots * static_cast<unsigned long long>(chunks);
  Turn turn = {{0, 0, chunk * job.outputs}, false, step + 1 == own, is_any};
  if (is_any) {
    place_tiles(job, 0, job.result_loops, static_cast<unsigned>(slot) - chunk * slots, false, turn);
    place_tiles(job, job.result_loops, job.loops, chunk * run + step, true, turn);
  }
  return turn;
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, BLOCKS)
    ENTRY(const __grid_constant__ ContractOf job, SOURCES, Out* out) {
  __shared__ Packed shared[CAPACITY / WIDTH];
  __shared__ List list;
  __shared__ Turn turns[2 * TURNS];
  Sum* const tile = &shared[0].of[0];
  const int finder = static_cast<int>(threadIdx.x) - (MAX_THREADS - WARP);  // the last warp finds turns
  if (finder >= 0) turns[finder] = find_turn(job, static_cast<unsigned>(finder));
  const Part left(job, 0, list), right(job, 1, list), result(job, 2, list);
  const Share share(job, list);

  // A block's turn: what was brought goes to shared memory; what comes next is on its way while threads compute.
  Pack<In, WIDTH> held_left[LEFT / WIDTH], held_right[RIGHT / WIDTH];
  Sums sums = {};
  __syncthreads();
  unsigned turn = NONE;  // that is computed: none while the first one is loaded
#pragma unroll 1
  while (true) {
    if (turn != NONE) {
      const bool brings_right = turn == 0 || !job.keeps;
      with_edge(turns[turn % (2 * TURNS)].edge, [&](auto at_edge) {
        using Side = Inside<at_edge.value>;
        store_part<LEFT_GROUP>(tile, job.order[0], left, held_left, job.conjugated & 1, Side(list, 0, left, job.rest));
        if (!brings_right) return;
        const Side side(list, 1, right, job.rest);
        store_part<RIGHT_GROUP>(tile, job.order[1], right, held_right, job.conjugated & 2, side);
      });
      __syncthreads();
    }
    const Turn& loaded = turns[(turn + 1) % (2 * TURNS)];
    const bool more = loaded.is_any;
    if (more) {
      const In *const from = src0 + loaded.at[0], *const other = src1 + loaded.at[1];
      const bool brings_right = turn == NONE || !job.keeps;
      with_edge(loaded.edge, [&](auto at_edge) {
        using Side = Inside<at_edge.value>;
        load_part<LEFT_GROUP>(held_left, job.order[0], left, from, Side(list, 0, left, job.rest));
        if (!brings_right) return;
        load_part<RIGHT_GROUP>(held_right, job.order[1], right, other, Side(list, 1, right, job.rest));
      });
    }
    if (finder >= 0 && turn % TURNS == 0) {
      const unsigned found = turn + TURNS + static_cast<unsigned>(finder);
      turns[found % (2 * TURNS)] = find_turn(job, found);
    }
    if (turn != NONE) {
      with_results(job, [&](auto results) { results.multiply(job, share, tile, sums); });
      __syncthreads();
      if (turns[turn % (2 * TURNS)].ends) {
        with_results(job, [&](auto results) { results.store(job, list, tile, sums); });
        __syncthreads();
        write_part(out + turns[turn % (2 * TURNS)].at[2], tile, job.order[2], result);
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
