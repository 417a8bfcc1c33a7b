// out[o] = src[offset(o)] where repeated labels agree, else 0: the transpose of reduce, as in `i->ii` and `j->iij`.
// Broadcasts, embeds on the diagonal and writes the zeros in one pass.
//
// Launch: any 1-D grid; one thread per output at a time.
// Moves outputs * sizeof(Out) bytes, and the source once from memory (again from the caches), with no flops. On H200,
// where a copy runs at 4.3 TB/s: `ij->iji` of 1024 x 1024 in float32 writes 4.29 GB, in 1.00 ms at the least.

// Loops run over the output in C order, outermost first. same[d] is the earlier loop whose label loop d repeats, or d.
struct ExpandOf {
  long long outputs, loops;
  long long size[MAX_LOOPS];
  long long stride[MAX_LOOPS];
  long long same[MAX_LOOPS];
};

// Where loop `loop` stands, given the joint position `index` of the loops 0..last.
__device__ inline long long coordinate(const ExpandOf& job, int loop, int last, long long index) {
#pragma unroll 1
  for (; last > loop; --last) index = quotient(index, job.size[last]);
  return loop > 0 ? index - quotient(index, job.size[loop]) * job.size[loop] : index;
}

extern "C" __global__ void ENTRY(const __grid_constant__ ExpandOf job, SOURCES, Out* out) {
  using Value = typename Accumulator<In>::type;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; o < job.outputs; o += step) {
    long long index = o, offset = 0;
    bool agree = true;
#pragma unroll 1
    for (int loop = static_cast<int>(job.loops) - 1; agree && loop >= 0; --loop) {
      const long long outer = loop > 0 ? quotient(index, job.size[loop]) : 0;
      const long long here = index - outer * job.size[loop];
      const int same = static_cast<int>(job.same[loop]);
      agree = same == loop || here == coordinate(job, same, loop - 1, outer);
      offset += here * job.stride[loop];
      index = outer;
    }
    out[o] = static_cast<Out>(agree ? static_cast<Value>(src0[offset]) : Value{});
  }
}
