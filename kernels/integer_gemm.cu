// c[b,i,j] = sum_k a[b,i,k] * b[b,k,j]: the batched matrix product for the types that cuBLAS lacks (integers and bool).
//
// Launch: any 1-D grid of 256 threads (16 x 16), one 64 x 64 tile of c per block at a time, 4 x 4 elements per thread.
// Moves (m * n * k / 64) * 2 + m * n elements per batch, in 2 * m * n * k operations. On H200, whose 132
// multiprocessors begin 64 products of 32-bit integers each at 1.98 GHz, 16.7e12 per second: 4096 x 4096 x 4096 takes
// 4.1 ms at the least; its tiles, 8.7 GB if none came from a cache, take 2.0 ms at 4.3 TB/s.
constexpr int THREADS = 16, EACH = 4, TILE = THREADS * EACH, DEPTH = 16;

// A tile's rows in packs, since one load from shared memory brings the numbers of a thread's 4 adjacent results.
template <typename Sum>
using Tile = Pack<Sum, EACH>[DEPTH][THREADS + 1];

// tile[k][i] = src[i * row + k * col], 0 outside rows x depth. Neighbouring threads read along the shorter stride.
template <typename Sum, typename T>
__device__ void load_tile(Tile<Sum>& tile, const T* src, long long rows, long long depth, long long row,
                          long long col) {
  const bool along_depth = (col < 0 ? -col : col) < (row < 0 ? -row : row);
#pragma unroll  // so that all loads are under way before the first is needed
  for (int n = 0; n < TILE * DEPTH; n += THREADS * THREADS) {
    const int e = n + static_cast<int>(threadIdx.x);
    const int i = along_depth ? e / DEPTH : e % TILE, k = along_depth ? e % DEPTH : e / TILE;
    tile[k][i / EACH].of[i % EACH] = i < rows && k < depth ? static_cast<Sum>(src[i * row + k * col]) : Sum{};
  }
}

struct IntegerGemmOf {
  long long batch, m, n, k;
  long long a_batch, a_row, a_col, b_batch, b_row, b_col, c_batch, c_row, c_col;
};

// Blocks that a multiprocessor shall hold: as many as spill no registers, by the compiler's report for sm_80 and sm_90.
constexpr int BLOCKS = sizeof(In) == 16 ? 1 : sizeof(In) == 2 || sizeof(In) == 4 ? 3 : 2;

extern "C" __global__ void __launch_bounds__(MAX_THREADS, BLOCKS)
    ENTRY(const __grid_constant__ IntegerGemmOf job, SOURCES, Out* out) {
  using Sum = typename Accumulator<In>::type;
  __shared__ Tile<Sum> a_tile, b_tile;
  const int y = static_cast<int>(threadIdx.x) / THREADS, x = static_cast<int>(threadIdx.x) % THREADS;
  const long long tiles_m = (job.m + TILE - 1) / TILE, tiles_n = (job.n + TILE - 1) / TILE;

  for (long long tile = blockIdx.x; tile < job.batch * tiles_m * tiles_n; tile += gridDim.x) {
    const long long strip = quotient(tile, tiles_n), at = quotient(strip, tiles_m);
    const long long i0 = (strip - at * tiles_m) * TILE, j0 = (tile - strip * tiles_n) * TILE;
    Pack<Sum, EACH> sum[EACH] = {};
    for (long long k0 = 0; k0 < job.k; k0 += DEPTH) {
      const long long left = job.k - k0;
      const In* a = src0 + at * job.a_batch + i0 * job.a_row + k0 * job.a_col;
      const In* b = src1 + at * job.b_batch + j0 * job.b_col + k0 * job.b_row;
      load_tile(a_tile, a, job.m - i0, left, job.a_row, job.a_col);
      load_tile(b_tile, b, job.n - j0, left, job.b_col, job.b_row);
      __syncthreads();
      const int depth = static_cast<int>(left < DEPTH ? left : DEPTH);
      for (int d = 0; d < depth; ++d) {
        const Pack<Sum, EACH> a_row = a_tile[d][y], b_row = b_tile[d][x];
#pragma unroll
        for (int r = 0; r < EACH; ++r) {
#pragma unroll
          for (int s = 0; s < EACH; ++s) sum[r].of[s] += a_row.of[r] * b_row.of[s];
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < EACH; ++r) {
      const long long i = i0 + y * EACH + r, j = j0 + x * EACH;
      Out* const row = out + at * job.c_batch + i * job.c_row + j * job.c_col;
      const Pack<Out, EACH> made = rounded<Out>(sum[r]);
      if (i < job.m && j + EACH <= job.n && job.c_col == 1 && is_aligned<EACH>(row)) {
        store_pack(row, made, true);
      } else if (i < job.m) {
#pragma unroll
        for (int s = 0; s < EACH; ++s) {
          if (j + s < job.n) row[s * job.c_col] = made.of[s];
        }
      }
    }
  }
}
