// out[o] = sum_s src0[offset(o, s)] * src1[offset(o, s)] * ...: sums, diagonals and traces of one array, as in
// `iij->j`, and of products of up to 4 for which a GEMM is the wrong tool, as in `bc,bc->b`, `ij,j->i` and
// `ijk,ik,k->i`. Bit n of `conjugated` makes src n its complex conjugate; real types ignore it.
//
// Launch: any 1-D grid; `lanes` (a power of two, at most blockDim.x) threads share an output.
// Moves each array once where it lies along the loops (what repeats comes from the caches) and outputs * chunks *
// sizeof(Out) bytes, in OPERANDS * outputs * terms flops. On H200, where a copy runs at 4.3 TB/s: `bc,bc->b` of 4096 x
// 65536 in float32 moves 2.15 GB, in 0.50 ms at the least; `ijk->ij` of 1024 x 512 x 1024 moves 2.15 GB, in 0.50 ms.
template <typename Access>
__device__ void sum_products(const SumOf<OPERANDS>& job, const In* const (&src)[OPERANDS], Out* out) {
  using Sum = typename Accumulator<In>::type;
  const Sources<In, OPERANDS, Access::WIDTH, Access::ALIGNED> sources(src, job.along, job.conjugated);
  sum_nest<Sum, Access::ALIGNED>(job, out, [&](const Offsets<OPERANDS>& at) {
    const Pack<Sum, Access::WIDTH> terms = sources.product(at);
    Sum sum = terms.of[0];
#pragma unroll
    for (int w = 1; w < Access::WIDTH; ++w) sum += terms.of[w];
    return sum;
  });
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT<In, OPERANDS>)
    ENTRY(const __grid_constant__ SumOf<OPERANDS> job, SOURCES, Out* out) {
  const In* const src[] = {SOURCE_NAMES};
  with_access(job.wide, src, [&](auto access) { sum_products<decltype(access)>(job, src, out); });
}
