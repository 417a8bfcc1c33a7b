// out[o] = src[offset(o)]: a copy whose neighbours in src are no neighbours in out, along axes that are short, as in
// `abcdef->fbdcea`. A block takes a tile through shared memory: a range of the axes along which src has its neighbours,
// and of those along which out has. So neighbouring threads read neighbours, and write neighbours. With `conjugated` = 1
// a copy of the complex conjugate; real types ignore it.
//
// Launch: any 1-D grid of 256 threads, one tile per block at a time.
// Moves outputs * 2 * sizeof(In) bytes, with no flops. On H200, where a copy runs at 4.3 TB/s: the axes of 2^28 float32
// move 2.15 GB, in 0.50 ms at the least.
constexpr int ELEMENTS = sizeof(In) > 4 ? 1024 : 4096, EACH = ELEMENTS / MAX_THREADS;  // of a tile; of a thread

// The order in which threads go over a tile: `columns` neighbours in each of `lines`. The loops first .. middle - 1 of
// the nest run over lines, middle .. end - 1 over columns.
struct OrderOf {
  long long columns, lines, first, middle, end;
};

// The loops that are kept run over tiles, with strides in src and in out; then come those over a tile as it is read, with
// strides in src and in shared memory, and those over it as it is written, with strides in out and in shared memory. The
// last array's strides tell how far an element lies along the two axes that tiles cut, in 32 bits for each.
struct PermuteOf {
  Nest<3> nest;
  long long tiles, last, conjugated;  // `last`: how far the last element of all lies along the two axes
  OrderOf read, write;
};

// Where a line or a column of a tile begins: in src or out, in shared memory, along the two axes in 16 bits for each.
struct Place {
  long long array;
  int tile;
  unsigned along;
};

__device__ inline Place place_of(const Nest<3>& nest, long long first, long long end, int index) {
  Offsets<3> at{};
  descend(at, nest, static_cast<int>(first), static_cast<int>(end) - 1, index);
  return {at.of[0], static_cast<int>(at.of[1]), static_cast<unsigned>(at.of[2] | at.of[2] >> 16)};
}

// How far the last element lies from a tile's first along the two axes, as far as a tile may go.
__device__ inline unsigned last_of_tile(long long last) {
  const long long most = 0x3fff, first = last & 0xffffffff, second = last >> 32;
  return static_cast<unsigned>((second < most ? second : most) << 16 | (first < most ? first : most));
}

constexpr unsigned NOWHERE = 0x4000;  // beyond any last element

// A thread goes over a tile along one column, in EACH lines of which neighbouring ones are `step` apart.
struct Walk {
  Place column;
  const Place* lines;  // the thread's

  __device__ Walk(const Nest<3>& nest, const OrderOf& order, Place* places) {
    const int thread = static_cast<int>(threadIdx.x), columns = static_cast<int>(order.columns);
    const int step = columns < EACH ? MAX_THREADS / EACH : MAX_THREADS / columns, first = thread / columns;
    column = place_of(nest, order.middle, order.end, thread - first * columns);
    if (first >= step) column.along = NOWHERE;  // a thread that is left over
    lines = places + (first < step ? first * EACH : 0);
    const int line = thread / EACH + thread % EACH * step;  // those of a thread lie side by side
    const bool is_line = thread / EACH < step && line < order.lines;
    places[thread] = place_of(nest, order.first, order.middle, is_line ? line : 0);
    if (!is_line) places[thread].along = NOWHERE;
  }

  // Whether the element of one of the lines lies before the arrays' ends: along neither axis is the difference negative.
  __device__ bool has(const Place& line, unsigned last) const {
    return !((last - column.along - line.along) & 0x80008000);
  }
};

// As many blocks on a multiprocessor as spill no registers, by the compiler's report for sm_80 and sm_90.
extern "C" __global__ void __launch_bounds__(MAX_THREADS, sizeof(In) == 4 ? 4 : 3)
    ENTRY(const __grid_constant__ PermuteOf job, SOURCES, Out* out) {
  using Value = typename Accumulator<In>::type;
  __shared__ In tile[ELEMENTS + ELEMENTS / 8];  // with padding
  __shared__ Place read_lines[MAX_THREADS], written_lines[MAX_THREADS];
  const Walk read(job.nest, job.read, read_lines), write(job.nest, job.write, written_lines);
  __syncthreads();
  for (long long t = blockIdx.x; t < job.tiles; t += gridDim.x) {
    Offsets<3> at{};
    descend(at, job.nest, 0, static_cast<int>(job.nest.kept) - 1, t);
    const unsigned last = last_of_tile(job.last - at.of[2]);
    const In* const from = src0 + at.of[0] + read.column.array;
    Out* const to = out + at.of[1] + write.column.array;
    // All loads are under way before the first is needed. Addresses come before conditions, so that the compiler makes
    // single loads and stores conditional: jumps over both took 15 % longer in a simulator.
    In held[EACH];
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
      const In* const address = from + read.lines[k].array;
      if (read.has(read.lines[k], last)) held[k] = *address;
    }
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
      In* const address = tile + read.column.tile + read.lines[k].tile;
      if (read.has(read.lines[k], last)) *address = held[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
      const Value value = static_cast<Value>(tile[write.column.tile + write.lines[k].tile]);
      Out* const address = to + write.lines[k].array;
      if (write.has(write.lines[k], last)) *address = static_cast<Out>(job.conjugated ? conjugate(value) : value);
    }
    __syncthreads();  // before the next tile overwrites what a slower thread still reads
  }
}
