// out[.., r, .., c] = src[.., c, .., r]: a copy that reads along one axis and writes along another, as in `ij->ji` and
// `abcd->dbca`. A block takes a tile through shared memory, so that neighbouring threads read neighbours (along `rows`,
// contiguous in src) and write neighbours (along `columns`, contiguous in out). With `conjugated` = 1 a copy of the
// complex conjugate; real types ignore it.
//
// Launch: any 1-D grid of 256 threads, one tile per block at a time.
// Moves outputs * 2 * sizeof(In) bytes, with no flops. On H200, where a copy runs at 4.3 TB/s: `ij->ji` of 16384 x
// 16384 in float32 moves 2.15 GB, in 0.50 ms at the least.
constexpr int TILE = sizeof(In) > 4 ? 32 : 64, LINES = 256 / TILE;
// A line of the tile is an odd number of 4-byte banks longer than a multiple of 32, so that a column lies in all of
// them.
constexpr int PITCH = TILE + (sizeof(In) < 4 ? 4 / sizeof(In) : 1);

struct TransposeOf {
  Nest<2> around;  // the other loops: strides in src and in out
  long long turns;  // of those loops
  long long rows, columns;
  long long column_stride, row_stride;  // of `columns` in src, of `rows` in out; the others are 1
  long long conjugated;
};

// How many of these neighbours lie in a tile.
__device__ inline int within(long long neighbours) {
  return static_cast<int>(neighbours < TILE ? neighbours : TILE);
}

extern "C" __global__ void ENTRY(const __grid_constant__ TransposeOf job, SOURCES, Out* out) {
  using Value = typename Accumulator<In>::type;
  __shared__ In tile[TILE][PITCH];
  const int x = static_cast<int>(threadIdx.x) % TILE, y = static_cast<int>(threadIdx.x) / TILE;
  const long long across = (job.rows + TILE - 1) / TILE, down = (job.columns + TILE - 1) / TILE;
  for (long long t = blockIdx.x; t < across * down * job.turns; t += gridDim.x) {
    const long long line = quotient(t, across), turn = quotient(line, down);
    const long long row = (t - line * across) * TILE, column = (line - turn * down) * TILE;
    const int rows = within(job.rows - row), columns = within(job.columns - column);
    Offsets<2> at{};
    descend(at, job.around, 0, static_cast<int>(job.around.kept) - 1, turn);
    const In* from = src0 + at.of[0] + row + x + (column + y) * job.column_stride;
    const int lines_in = x < rows ? columns - y : 0, lines_out = x < columns ? rows - y : 0;
    In held[TILE / LINES] = {};  // so that all loads are under way before the first is needed
#pragma unroll
    for (int c = 0; c < TILE; c += LINES, from += LINES * job.column_stride) {
      if (c < lines_in) held[c / LINES] = *from;
    }
#pragma unroll
    for (int c = 0; c < TILE; c += LINES) tile[y + c][x] = held[c / LINES];
    __syncthreads();
    Out* to = out + at.of[1] + column + x + (row + y) * job.row_stride;
#pragma unroll
    for (int r = 0; r < TILE; r += LINES, to += LINES * job.row_stride) {
      const Value value = static_cast<Value>(tile[x][y + r]);
      if (r < lines_out) *to = static_cast<Out>(job.conjugated ? conjugate(value) : value);
    }
    __syncthreads();  // before the next tile overwrites what a slower thread still reads
  }
}
