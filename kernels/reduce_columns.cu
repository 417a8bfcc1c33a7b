// out[.., j] = sum_s src0[offset(s, j)] * src1[offset(s, j)] * ...: as reduce, where neighbours in memory belong to
// neighbouring results, as in `ij->j` and `bij,bi->bj`. Every thread adds up a pack of results, which `outputs` and the
// kept loops count, by itself: no `lanes` share them.
//
// Launch: any 1-D grid.
// Moves each array once and outputs * WIDTH * chunks * sizeof(Out) bytes, in OPERANDS * outputs * WIDTH * terms flops.
// On H200, where a copy runs at 4.3 TB/s: `ij->j` of 16384 x 16384 in float16 moves 0.54 GB, in 0.12 ms at the least.
template <typename Access>
__device__ void sum_columns(const SumOf<OPERANDS>& job, const In* const (&src)[OPERANDS], Out* out) {
  using Sum = typename Accumulator<In>::type;
  constexpr int WIDTH = WIDE<In>;
  const Sources<In, OPERANDS, WIDTH, Access::ALIGNED> sources(src, job.along, job.conjugated);
  const bool aligned = is_aligned<WIDTH>(out);
  const long long run = quotient(job.terms + job.chunks - 1, job.chunks), slots = job.outputs * job.chunks;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long slot = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; slot < slots; slot += step) {
    const long long chunk = quotient(slot, job.outputs), pack = slot - chunk * job.outputs, begin = chunk * run;
    const long long end = begin + run < job.terms ? begin + run : job.terms;
    Offsets<OPERANDS> base{};
    descend(base, job.nest, 0, static_cast<int>(job.nest.kept) - 1, pack);
    const auto value = [&](const Offsets<OPERANDS>& at) { return sources.product(at); };
    const auto sum = rounded<Out>(sum_terms<Pack<Sum, WIDTH>, Access::ALIGNED>(job.nest, base, begin, end, 1, value));
    if (job.chunks == 1) {
      store_pack(out + pack * WIDTH, sum, aligned);
    } else {
      for (int w = 0; w < WIDTH; ++w) out[(pack * WIDTH + w) * job.chunks + chunk] = sum.of[w];
    }
  }
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT<In, OPERANDS>)
    ENTRY(const __grid_constant__ SumOf<OPERANDS> job, SOURCES, Out* out) {
  const In* const src[] = {SOURCE_NAMES};
  with_access(true, src, [&](auto access) { sum_columns<decltype(access)>(job, src, out); });
}
