// out[o] = sum_s src0[offset(o, s)] * src1[offset(o, s)] * ...: sums, diagonals and traces of one array, as in
// `iij->j`, and of products of up to 4 for which a GEMM is the wrong tool, as in `bc,bc->b`, `ij,j->i` and
// `ijk,ik,k->i`. Bit n of `conjugated` makes src n its complex conjugate; real types ignore it. For sums whose terms
// are neighbours in memory: neighbouring threads, `lanes` (a power of two, at most blockDim.x), share an output.
//
// Launch: any 1-D grid, of whole warps if lanes > 1; beside = 1.
// Moves each array once where it lies along the loops (what repeats comes from the caches) and outputs * chunks *
// sizeof(Out) bytes, in OPERANDS * outputs * terms flops. On H200, where a copy runs at 4.3 TB/s: `bc,bc->b` of 4096 x
// 65536 in float32 moves 2.15 GB, in 0.50 ms at the least; `ijk->ij` of 1024 x 512 x 1024 moves 2.15 GB, in 0.50 ms.

constexpr int WARP = 32;

// The value of the thread that is so many further on in the warp.
template <typename T>
__device__ T further(const T& value, int threads) {
  return static_cast<T>(__shfl_down_sync(0xffffffffu, value, threads));
}

template <typename Real>
__device__ complex_t<Real> further(const complex_t<Real>& value, int threads) {
  return {further(value.real, threads), further(value.imag, threads)};
}

// The sum over `lanes` neighbouring threads, for the first of them: in each warp, then of the warps that share it.
template <typename Sum>
__device__ Sum sum_lanes(Sum sum, int lane, int lanes, Sum (&partial)[MAX_THREADS / WARP]) {
  for (int half = (lanes < WARP ? lanes : WARP) / 2; half > 0; half /= 2) sum += further(sum, half);
  if (lanes <= WARP) return sum;
  const int warp = static_cast<int>(threadIdx.x) / WARP;
  if (lane % WARP == 0) partial[warp] = sum;
  __syncthreads();
  if (lane == 0) {
#pragma unroll 1
    for (int other = 1; other < lanes / WARP; ++other) sum += partial[warp + other];
  }
  __syncthreads();  // before the next round overwrites what a slower thread still reads
  return sum;
}

template <typename Access>
__device__ void sum_products(const SumOf<OPERANDS>& job, const In* const (&src)[OPERANDS], Out* out) {
  using Sum = typename Accumulator<In>::type;
  __shared__ Sum partial[MAX_THREADS / WARP];
  const Sources<In, OPERANDS, Access::WIDTH, Access::ALIGNED> sources(src, job.along, job.conjugated);
  sum_nest<Sum, AT_ONCE<Access, In, OPERANDS>>(
      job, [&](const Offsets<OPERANDS>& at) { return total(sources.product(at)); },
      [&](const Sum& sum, int lane) { return sum_lanes(sum, lane, static_cast<int>(job.lanes), partial); },
      [&](long long slot, const Sum& sum) { out[slot] = static_cast<Out>(sum); });
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT<In, OPERANDS>)
    ENTRY(const __grid_constant__ SumOf<OPERANDS> job, SOURCES, Out* out) {
  const In* const src[] = {SOURCE_NAMES};
  with_access(job.wide, src, [&](auto access) { sum_products<decltype(access)>(job, src, out); });
}
