// out[o] = src[offset(o)] where repeated labels agree, else 0: the transpose of reduce, as in `i->ii` and `j->iij`.
// Broadcasts, embeds on the diagonal and writes the zeros in one pass.
//
// Launch: any 1-D grid; one thread per output at a time.
// Moves outputs * sizeof(Out) bytes, and the source once from memory (again from the caches), with no flops.

// Loops run over the output in C order, outermost first. same[d] is the earlier loop whose label loop d repeats, or d.
struct ExpandNest {
  long long loops;
  long long size[MAX_LOOPS];
  long long stride[MAX_LOOPS];
  long long same[MAX_LOOPS];
};

// Where loop `loop` stands, given the joint position `index` of the loops 0..last.
__device__ inline long long coordinate(const ExpandNest& nest, int loop, int last, long long index) {
#pragma unroll 1
  for (; last > loop; --last) index = quotient(index, nest.size[last]);
  return loop > 0 ? index - quotient(index, nest.size[loop]) * nest.size[loop] : index;
}

extern "C" __global__ void ENTRY(const __grid_constant__ ExpandNest nest, const In* src, Out* out, long long outputs) {
  using Value = typename Accumulator<In>::type;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; o < outputs; o += step) {
    long long index = o, offset = 0;
    bool agree = true;
#pragma unroll 1
    for (int loop = static_cast<int>(nest.loops) - 1; agree && loop >= 0; --loop) {
      const long long outer = loop > 0 ? quotient(index, nest.size[loop]) : 0;
      const long long here = index - outer * nest.size[loop];
      const int same = static_cast<int>(nest.same[loop]);
      agree = same == loop || here == coordinate(nest, same, loop - 1, outer);
      offset += here * nest.stride[loop];
      index = outer;
    }
    out[o] = static_cast<Out>(agree ? static_cast<Value>(src[offset]) : Value{});
  }
}
