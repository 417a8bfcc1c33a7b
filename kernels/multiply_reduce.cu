// out[o] = sum_s lhs[offset(o, s)] * rhs[offset(o, s)]: the pairs for which a GEMM is the wrong tool, as in `bc,bc->b`,
// `i,j->ij`, `ij,ij->ij` and `ij,j->i`. Bit 0 of `conjugated` makes lhs its complex conjugate, bit 1 rhs; real types
// ignore it.
//
// Launch: any 1-D grid; `lanes` (a power of two, at most blockDim.x) threads share an output.
// Moves 2 * outputs * terms * sizeof(In) + outputs * chunks * sizeof(Out) bytes (less what repeats in the caches), in
// 2 * outputs * terms flops.
extern "C" __global__ void ENTRY(const __grid_constant__ Nest<2> nest, const In* lhs, const In* rhs, Out* out,
                                 long long outputs, long long terms, long long lanes, long long chunks,
                                 long long conjugated) {
  using Sum = typename Accumulator<In>::type;
  sum_nest<Sum>(nest, out, outputs, terms, lanes, chunks, [&](const Offsets<2>& at) {
    const Sum x = static_cast<Sum>(lhs[at.of[0]]), y = static_cast<Sum>(rhs[at.of[1]]);
    return static_cast<Sum>((conjugated & 1 ? conjugate(x) : x) * (conjugated & 2 ? conjugate(y) : y));
  });
}
