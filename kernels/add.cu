// out[o] = lhs[offset(o)] + rhs[offset(o)]: two arrays of one shape, each with its own strides, as in `ij+ij->ij`.
// `out` is contiguous, and may be an operand that is read where it is written: so a longer sum adds up in place.
//
// Launch: any 1-D grid; one thread per output at a time. The nest sums nothing.
// Moves outputs * (2 * sizeof(In) + sizeof(Out)) bytes, in outputs additions; halves are added in float32, rounded once.
extern "C" __global__ void ENTRY(const __grid_constant__ Nest<2> nest, const In* lhs, const In* rhs, Out* out,
                                 long long outputs) {
  using Sum = typename Accumulator<In>::type;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; o < outputs; o += step) {
    Offsets<2> at{};
    descend(at, nest, 0, static_cast<int>(nest.kept) - 1, o);
    Sum sum = static_cast<Sum>(lhs[at.of[0]]);
    sum += static_cast<Sum>(rhs[at.of[1]]);
    out[o] = static_cast<Out>(sum);
  }
}
