// c[b,i,j] = sum_k a[b,i,k] * b[b,k,j]: the batched matrix product for the types that cuBLAS lacks (integers and bool).
//
// Launch: any 1-D grid of 256 threads (16 x 16), one 64 x 64 tile of c per block at a time, 4 x 4 elements per thread.
// Moves (m * n * k / 64) * 2 + m * n elements per batch, in 2 * m * n * k flops.
constexpr int THREADS = 16, EACH = 4, TILE = THREADS * EACH, DEPTH = 16;

// tile[k][i] = src[i * row + k * col], 0 outside rows x depth. Neighbouring threads read along the shorter stride.
template <typename Sum, typename T>
__device__ void load_tile(Sum (&tile)[DEPTH][TILE + 1], const T* src, long long rows, long long depth, long long row,
                          long long col) {
  const bool along_depth = (col < 0 ? -col : col) < (row < 0 ? -row : row);
  for (int e = static_cast<int>(threadIdx.x); e < TILE * DEPTH; e += THREADS * THREADS) {
    const int i = along_depth ? e / DEPTH : e % TILE, k = along_depth ? e % DEPTH : e / TILE;
    tile[k][i] = i < rows && k < depth ? static_cast<Sum>(src[i * row + k * col]) : Sum{};
  }
}

extern "C" __global__ void ENTRY(const In* a, const In* b, Out* c, long long batch, long long m, long long n,
                                 long long k, long long a_batch, long long a_row, long long a_col, long long b_batch,
                                 long long b_row, long long b_col, long long c_batch, long long c_row,
                                 long long c_col) {
  using Sum = typename Accumulator<In>::type;
  __shared__ Sum a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1];
  const int y = static_cast<int>(threadIdx.x) / THREADS, x = static_cast<int>(threadIdx.x) % THREADS;
  const long long tiles_m = (m + TILE - 1) / TILE, tiles_n = (n + TILE - 1) / TILE;

  for (long long tile = blockIdx.x; tile < batch * tiles_m * tiles_n; tile += gridDim.x) {
    const long long strip = quotient(tile, tiles_n), at = quotient(strip, tiles_m);
    const long long i0 = (strip - at * tiles_m) * TILE, j0 = (tile - strip * tiles_n) * TILE;
    Sum sum[EACH][EACH] = {};
    for (long long k0 = 0; k0 < k; k0 += DEPTH) {
      load_tile(a_tile, a + at * a_batch + i0 * a_row + k0 * a_col, m - i0, k - k0, a_row, a_col);
      load_tile(b_tile, b + at * b_batch + j0 * b_col + k0 * b_row, n - j0, k - k0, b_col, b_row);
      __syncthreads();
      const int depth = static_cast<int>(k - k0 < DEPTH ? k - k0 : DEPTH);
      for (int d = 0; d < depth; ++d) {
        for (int r = 0; r < EACH; ++r) {
          for (int s = 0; s < EACH; ++s) sum[r][s] += a_tile[d][y + r * THREADS] * b_tile[d][x + s * THREADS];
        }
      }
      __syncthreads();
    }
    for (int r = 0; r < EACH; ++r) {
      for (int s = 0; s < EACH; ++s) {
        const long long i = i0 + y + r * THREADS, j = j0 + x + s * THREADS;
        if (i < m && j < n) c[at * c_batch + i * c_row + j * c_col] = static_cast<Out>(sum[r][s]);
      }
    }
  }
}
