// out[o] = src0[offset(o)] * src1[offset(o)] * ...: products of up to 4 arrays with nothing to sum, as in `i,j->ij` and
// `ij,ij,j->ij`; of one array a copy, as in `ii->i` or `ij->ij`. Bit n of `conjugated` makes src n its complex
// conjugate; real types ignore it.
//
// Launch: any 1-D grid; one thread per pack of outputs at a time.
// Moves each array once (what repeats comes from the caches) and outputs * sizeof(Out) bytes, in (OPERANDS - 1) *
// outputs flops. On H200, where a copy runs at 4.3 TB/s: `ij,ij,j->ij` of 16384 x 16384 in float32 moves 3.22 GB, in
// 0.75 ms at the least; `i,j->ij` of the same size moves 1.07 GB, in 0.25 ms.
template <typename Access>
__device__ void multiply(const MapOf<OPERANDS>& job, const In* const (&src)[OPERANDS], Out* out) {
  const Sources<In, OPERANDS, Access::WIDTH, Access::ALIGNED> sources(src, job.along, job.conjugated);
  map_nest<Access::WIDTH>(job, out, [&](const Offsets<OPERANDS>& at) { return rounded<Out>(sources.product(at)); });
}

extern "C" __global__ void ENTRY(const __grid_constant__ MapOf<OPERANDS> job, SOURCES, Out* out) {
  const In* const src[] = {SOURCE_NAMES};
  with_access(job.wide, src, [&](auto access) { multiply<decltype(access)>(job, src, out); });
}
