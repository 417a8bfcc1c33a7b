// Fifth part: results that are made element by element, nothing summed.

// Results of `outputs` packs, as they are launched; the nest sums nothing, and the result is contiguous.
template <int N>
struct MapOf {
  Nest<N> nest;
  long long outputs, conjugated;
  long long wide, along;  // whether threads write packs, so that the loops count packs; as in Sources
};

// out[o] = value(offset(o)), a pack at a time.
template <int WIDTH, typename Out, int N, typename Value>
__device__ void map_nest(const MapOf<N>& job, Out* out, Value value) {
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  const bool aligned = is_aligned<WIDTH>(out);
  for (long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; o < job.outputs; o += step) {
    Offsets<N> at{};
    descend(at, job.nest, 0, static_cast<int>(job.nest.kept) - 1, o);
    store_pack<Out, WIDTH>(out + o * WIDTH, value(at), aligned);
  }
}
