// out[o] = src[offset(o)] where repeated labels agree, else 0: the transpose of reduce, as in `i->ii` and `j->iij`.
// Broadcasts, embeds on the diagonal and writes the zeros in one pass.
//
// Launch: any 1-D grid; one thread per pack of outputs at a time.
// Moves outputs * sizeof(Out) bytes, and the source once from memory (again from the caches), with no flops. On H200,
// where a copy runs at 4.3 TB/s: `ij->iji` of 1024 x 1024 in float32 writes 4.29 GB, in 1.00 ms at the least.

// The strides of the nest are those in src, and those of a number that is 0 only where all repeated labels agree.
struct ExpandOf {
  MapOf<2> map;
  long long next[2];  // the same two from an output to its neighbour
};

template <int WIDTH>
__device__ void expand(const ExpandOf& job, const In* src, Out* out) {
  using Value = typename Accumulator<In>::type;
  map_nest<WIDTH>(job.map, out, [&](const Offsets<2>& at) {
    Pack<Value, WIDTH> pack;
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) {
      const bool agree = at.of[1] + w * job.next[1] == 0;
      pack.of[w] = agree ? static_cast<Value>(src[at.of[0] + w * job.next[0]]) : Value{};
    }
    return rounded<Out>(pack);
  });
}

extern "C" __global__ void ENTRY(const __grid_constant__ ExpandOf job, SOURCES, Out* out) {
  if (WIDE<In> > 1 && job.map.wide) {
    expand<WIDE<In>>(job, src0, out);
  } else {
    expand<1>(job, src0, out);
  }
}
