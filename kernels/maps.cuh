// Fifth part: results that are made element by element, nothing summed.

// Results of `outputs` packs, as they are launched; the nest sums nothing, and the result is contiguous.
template <int N>
struct MapOf {
  Nest<N> nest;
  long long outputs, conjugated;
  long long wide, along;  // whether threads write packs, so that the loops count packs; as in Sources
};

// out[o] = value(offset(o)), a pack at a time; or several single elements, so that their loads are under way together.
template <int WIDTH, typename Out, int N, typename Value>
__device__ void map_nest(const MapOf<N>& job, Out* out, Value value) {
  constexpr int AT_ONCE = WIDTH == 1 && sizeof(Out) < 16 && N < 4 ? 4 / N : 1;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  const bool aligned = is_aligned<WIDTH>(out);
  const auto offsets = [&](long long o) {
    Offsets<N> at{};
    descend(at, job.nest, 0, static_cast<int>(job.nest.kept) - 1, o);
    return at;
  };
  long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; AT_ONCE > 1 && job.outputs - o > (AT_ONCE - 1) * step; o += AT_ONCE * step) {
    Offsets<N> at[AT_ONCE];
    Pack<Out, WIDTH> made[AT_ONCE];
#pragma unroll
    for (int u = 0; u < AT_ONCE; ++u) at[u] = offsets(o + u * step);
#pragma unroll
    for (int u = 0; u < AT_ONCE; ++u) made[u] = value(at[u]);
#pragma unroll
    for (int u = 0; u < AT_ONCE; ++u) store_pack<Out, WIDTH>(out + (o + u * step) * WIDTH, made[u], aligned);
  }
  for (; o < job.outputs; o += step) store_pack<Out, WIDTH>(out + o * WIDTH, value(offsets(o)), aligned);
}
