// out[o] = sum_s src[offset(o, s)]: permute, diagonal, trace and sum of one array in one pass, as in `iij->j`.
// With `conjugated` = 1 the sum is that of the complex conjugates; real types ignore it.
//
// Launch: any 1-D grid; `lanes` (a power of two, at most blockDim.x) threads share an output.
// Moves outputs * terms * sizeof(In) + outputs * chunks * sizeof(Out) bytes, in outputs * terms additions.
extern "C" __global__ void ENTRY(const __grid_constant__ Nest<1> nest, const In* src, Out* out, long long outputs,
                                 long long terms, long long lanes, long long chunks, long long conjugated) {
  using Sum = typename Accumulator<In>::type;
  sum_nest<Sum>(nest, out, outputs, terms, lanes, chunks, [&](const Offsets<1>& at) {
    const Sum x = static_cast<Sum>(src[at.of[0]]);
    return conjugated & 1 ? conjugate(x) : x;
  });
}
