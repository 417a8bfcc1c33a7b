// out[o] = a[offset(o)], or a[offset(o)] * b[offset(o)], where neighbours in a are no neighbours in out, as in `ij->ji`,
// `abcdef->fbdcea` and `ij,ji->ij`. A block takes a tile through shared memory: a range of the axes along which a has its
// neighbours, and of those along which out has. So neighbouring threads read neighbours, and write neighbours; b is read
// in the order of out. Bit 0 of `conjugated` makes a its complex conjugate, bit 1 b; real types ignore it.
//
// Launch: any 1-D grid of 256 threads, one tile per block at a time.
// Moves outputs * (OPERANDS + 1) * sizeof(In) bytes, in (OPERANDS - 1) * outputs flops. On H200, where a copy runs at
// 4.3 TB/s: `ij->ji` of 16384 x 16384 in float32 moves 2.15 GB, in 0.50 ms at the least.
constexpr int ELEMENTS = sizeof(In) > 4 ? 1024 : 4096;                   // of the largest tile, as in tiles.py
constexpr int EACH = ELEMENTS / MAX_THREADS, ROUND = EACH < 8 ? EACH : 8;  // of a thread; under way at once

// Where an element lies, or a line, a column or a tile begins: in a (where a tile is written, in shared memory), in b
// and out, and along the two axes that tiles cut, in 32 bits for each.
using Place = Offsets<OPERANDS + 2>;
constexpr int B = OPERANDS - 1, OUT = OPERANDS, ALONG = OPERANDS + 1;
constexpr unsigned long long OUTSIDE = 1ull << 63 | 1ull << 31;  // what is negative in a difference of two of the last

// The order in which threads go over a tile: `columns` neighbours in each of `lines`. The loops first .. middle - 1 of
// the nest run over lines, middle .. end - 1 over columns.
struct OrderOf {
  long long columns, lines, first, middle, end;
};

// The loops that are kept run over tiles; then come those over a tile as it is read, and those as it is written.
struct PermuteOf {
  Nest<OPERANDS + 2> nest;
  long long tiles, last, pitch;   // the last place along the two axes; elements from line to line in shared memory
  long long swapped, conjugated;  // `swapped`: whether src1 is a
  OrderOf read, write;
};

__device__ inline Place place_of(const PermuteOf& job, long long first, long long end, long long index) {
  Place place{};
  descend(place, job.nest, static_cast<int>(first), static_cast<int>(end) - 1, index);
  return place;
}

// A thread goes along one column of a tile, over every `step`th of its lines.
struct Walk {
  Place begin;          // of the column
  const Place* places;  // of the lines
  int column, line, step, lines;

  __device__ Walk(const PermuteOf& job, const OrderOf& order, Place* shared) : places(shared) {
    const int thread = static_cast<int>(threadIdx.x), columns = static_cast<int>(order.columns);
    step = MAX_THREADS / columns;
    line = thread / columns;
    column = thread - line * columns;
    lines = line < step ? static_cast<int>(order.lines) : 0;  // the threads that are left over have none
    begin = place_of(job, order.middle, order.end, column);
    if (thread < order.lines) shared[thread] = place_of(job, order.first, order.middle, thread);
  }

  // run(n, line) for the thread's elements number `k` and those after it, n later, that lie before the arrays' ends.
  template <typename Run>
  __device__ void round(int k, long long last, Run run) const {
#pragma unroll
    for (int n = 0; n < ROUND; ++n) {
      const int own = line + (k + n) * step;
      if (own < lines && !((last - begin.of[ALONG] - places[own].of[ALONG]) & OUTSIDE)) run(n, own);
    }
  }
};

// Blocks that a multiprocessor shall hold: as many as spill no registers, by the compiler's report for sm_80 and sm_90.
// With 4 of them 8 loads of 4 bytes each are 32 KB under way.
constexpr int BLOCKS = (sizeof(In) > 4 ? 4 : 5) - OPERANDS;

extern "C" __global__ void __launch_bounds__(MAX_THREADS, BLOCKS)
    ENTRY(const __grid_constant__ PermuteOf job, SOURCES, Out* out) {
  using Value = typename Accumulator<In>::type;
  __shared__ In tile[ELEMENTS + ELEMENTS / 8];
  __shared__ Place read_lines[MAX_THREADS], written_lines[MAX_THREADS];
  const In* const src[] = {SOURCE_NAMES};
  const auto value = [&](In element, int bit) {
    const Value same = static_cast<Value>(element);
    return job.conjugated >> bit & 1 ? conjugate(same) : same;
  };
  const Walk read(job, job.read, read_lines), write(job, job.write, written_lines);
  const int pitch = static_cast<int>(job.pitch);
  __syncthreads();
  for (long long t = blockIdx.x; t < job.tiles; t += gridDim.x) {
    const Place at = place_of(job, 0, job.nest.kept, t);
    const long long last = job.last - at.of[ALONG];
    const In* const a = (job.swapped ? src[B] : src[0]) + at.of[0] + read.begin.of[0];
    const In* const b = (job.swapped ? src[0] : src[B]) + at.of[B] + write.begin.of[B];
    Out* const to = out + at.of[OUT] + write.begin.of[OUT];
#pragma unroll 1
    for (int k = 0; k < EACH; k += ROUND) {
      In held[ROUND];  // all of them are under way before the first is needed
      read.round(k, last, [&](int n, int line) { held[n] = a[read_lines[line].of[0]]; });
      read.round(k, last, [&](int n, int line) { tile[read.column + line * pitch] = held[n]; });
    }
    __syncthreads();
#pragma unroll 1
    for (int k = 0; k < EACH; k += ROUND) {
      In held[ROUND];
      if (OPERANDS > 1) write.round(k, last, [&](int n, int line) { held[n] = b[written_lines[line].of[B]]; });
      write.round(k, last, [&](int n, int line) {
        const Value result = value(tile[write.begin.of[0] + written_lines[line].of[0]], 0);
        to[written_lines[line].of[OUT]] =
            static_cast<Out>(OPERANDS > 1 ? static_cast<Value>(result * value(held[n], 1)) : result);
      });
    }
    __syncthreads();  // before the next tile overwrites what a slower thread still reads
  }
}
