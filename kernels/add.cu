// out[o] = src0[offset(o)] + src1[offset(o)] + ...: up to 4 arrays of one shape, each with its own strides, as in
// `ij+ij->ij`. `out` is contiguous, and may be an operand that is read where it is written: so a longer sum adds up in
// place.
//
// Launch: any 1-D grid; one thread per pack of outputs at a time. Halves are added in float32, and rounded once.
// Moves outputs * (OPERANDS * sizeof(In) + sizeof(Out)) bytes, in (OPERANDS - 1) * outputs additions. On H200, where a
// copy runs at 4.3 TB/s: `ij+ij->ij` of 16384 x 16384 in float32 moves 3.22 GB, in 0.75 ms at the least.
template <typename Access>
__device__ void add(const MapOf<OPERANDS>& job, const In* const (&src)[OPERANDS], Out* out) {
  const Sources<In, OPERANDS, Access::WIDTH, Access::ALIGNED> sources(src, job.along, 0);
  map_nest<Access::WIDTH>(job, out, [&](const Offsets<OPERANDS>& at) { return rounded<Out>(sources.sum(at)); });
}

extern "C" __global__ void ENTRY(const __grid_constant__ MapOf<OPERANDS> job, SOURCES, Out* out) {
  const In* const src[] = {SOURCE_NAMES};
  with_access(job.wide, src, [&](auto access) { add<decltype(access)>(job, src, out); });
}
