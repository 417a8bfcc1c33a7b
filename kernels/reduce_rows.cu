// out[o] = sum_s src0[offset(o, s)] * src1[offset(o, s)] * ...: as reduce, where few neighbours are summed, as in
// `ij->i` of 1000000 x 23. A block reads the terms of many outputs, one output after the other, as they lie in memory:
// neighbouring threads read neighbours. They meet in shared memory, where each thread adds up those of one output.
//
// Launch: any 1-D grid of `terms` threads at the least; one summed loop; lanes = beside = chunks = 1.
// Moves each array once and outputs * sizeof(Out) bytes, in OPERANDS * outputs * terms flops. On H200, where a copy
// runs at 4.3 TB/s: `ij->i` of 10000000 x 23 in float32 moves 0.96 GB, in 0.22 ms at the least.
constexpr int STAGED_BYTES = 16 << 10;

template <typename Access>
__device__ void sum_rows(const SumOf<OPERANDS>& job, const In* const (&src)[OPERANDS], Out* out, void* shared,
                         Offsets<OPERANDS>* of_row) {
  using Sum = typename Accumulator<In>::type;
  constexpr int CAPACITY = STAGED_BYTES / sizeof(Sum), TERMS = AT_ONCE<Access, In, OPERANDS>;
  Sum* const staged = static_cast<Sum*>(shared);
  const Sources<In, OPERANDS, Access::WIDTH, Access::ALIGNED> sources(src, job.along, job.conjugated);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int terms = static_cast<int>(job.terms), kept = static_cast<int>(job.nest.kept);
  const int pitch = terms | 1;  // odd, so that rows lie in different banks
  // A thread reads the same term of every row that it reads, so that it divides here only.
  const int at_once = threads / terms, first = thread / terms, term = thread - first * terms;
  const int fit = CAPACITY / pitch < threads ? CAPACITY / pitch : threads, turn = TERMS * at_once;
  const int most = fit < turn ? fit : fit - fit % turn;
  Offsets<OPERANDS> of_term{};
  advance(of_term, job.nest, kept, term);

  const long long step = static_cast<long long>(gridDim.x) * most;
  for (long long block = static_cast<long long>(blockIdx.x) * most; block < job.outputs; block += step) {
    const int rows = job.outputs - block < most ? static_cast<int>(job.outputs - block) : most;
    if (thread < rows) {
      of_row[thread] = Offsets<OPERANDS>{};
      descend(of_row[thread], job.nest, 0, kept - 1, block + thread);
    }
    __syncthreads();
    for (int row = first < at_once ? first : rows; row < rows; row += TERMS * at_once) {
      Sum values[TERMS];
#pragma unroll
      for (int u = 0; u < TERMS; ++u) {
        const int there = row + u * at_once;
        Offsets<OPERANDS> at = of_row[there < rows ? there : row];  // what is read once more is not used
        for (int n = 0; n < OPERANDS; ++n) at.of[n] += of_term.of[n];
        values[u] = total(sources.product(at));
      }
#pragma unroll
      for (int u = 0; u < TERMS; ++u) {
        const int there = row + u * at_once;
        if (there < rows) staged[there * pitch + term] = values[u];
      }
    }
    __syncthreads();
    if (thread < rows) {
      Sum sum{};
      for (int own = 0; own < terms; ++own) sum += staged[thread * pitch + own];
      out[block + thread] = static_cast<Out>(sum);
    }
  }
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, RESIDENT<In, OPERANDS>)
    ENTRY(const __grid_constant__ SumOf<OPERANDS> job, SOURCES, Out* out) {
  __shared__ typename Accumulator<In>::type staged[STAGED_BYTES / sizeof(typename Accumulator<In>::type)];
  __shared__ Offsets<OPERANDS> of_row[MAX_THREADS];
  const In* const src[] = {SOURCE_NAMES};
  with_access(job.wide, src, [&](auto access) { sum_rows<decltype(access)>(job, src, out, staged, of_row); });
}
