// Fourth part: sums over nested loops, by one thread or by several that share an output.

// sum of value(base + offset(s)) over s = begin, begin + step, ... < end, for at least one summed loop. Runs along the
// innermost without dividing, and finds its place anew where that loop is used up.
template <typename Sum, bool ALIGNED, int N, typename Value>
__device__ Sum sum_terms(const Nest<N>& nest, const Offsets<N>& base, long long begin, long long end, long long step,
                         Value value) {
  // So many loads are under way at once, whatever the number of arrays: additions wait for each other, loads need not.
  // With 4 terms of each, 2 arrays took 90 registers and 4 took 126 (float32, sm_90), so that fewer threads would run.
  // A loop that may end after every term would be no good: the compiler moves no load to before such an end, nor to
  // before the branches of packs that may lie anywhere.
  constexpr int UNROLLED = ALIGNED && N < 4 ? 4 / N : 1;
  const int first = static_cast<int>(nest.kept), last = static_cast<int>(nest.kept + nest.summed) - 1;
  const long long row = first < last ? nest.size[last] : end;
  Sum sum{};
  while (begin < end) {
    Offsets<N> at = base, stride{};
    const long long outer = first < last ? quotient(begin, row) : 0;
    const long long position = begin - outer * row;
    descend(at, nest, first, last - 1, outer);
    advance(at, nest, last, position);
    advance(stride, nest, last, step);
    const auto next = [&] {
      const Sum term = value(at);
      for (int n = 0; n < N; ++n) at.of[n] += stride.of[n];
      return term;
    };
    const long long stop = end - begin < row - position ? end - begin : row - position;
    long long done = 0;
#pragma unroll 1
    for (; UNROLLED > 1 && stop - done > (UNROLLED - 1) * step; done += UNROLLED * step) {
      Sum terms[UNROLLED];
#pragma unroll
      for (int u = 0; u < UNROLLED; ++u) terms[u] = next();
#pragma unroll
      for (int u = 0; u < UNROLLED; ++u) sum += terms[u];
    }
#pragma unroll 1
    for (; done < stop; done += step) sum += next();
    begin += done;
  }
  return sum;
}

// Waits for the other threads of an aligned group of `width` (a power of two) threads.
__device__ inline void synchronise(int width) {
  if (width <= 32) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

// A sum over N arrays, as it is launched: `terms` index points for each of `outputs` results.
//
// `lanes` threads of a block (a power of two, MAX_THREADS at most) share an output and add up in a fixed tree. With
// chunks > 1 the terms are cut into that many runs, and out[o * chunks + c] receives run c alone, to be added up by a
// second launch. So the order of additions depends on lanes and chunks only, and any grid gives the same bits.
template <int N>
struct SumOf {
  Nest<N> nest;
  long long outputs, terms, lanes, chunks, conjugated;
  long long wide, along;  // whether a term is a whole pack, so that the loops count packs; as in Sources
};

// out[o] = sum of value(offset(o, s)) over s < terms, for every o < outputs.
template <typename Sum, bool ALIGNED, typename Out, int N, typename Value>
__device__ void sum_nest(const SumOf<N>& job, Out* out, Value value) {
  __shared__ Sum partial[MAX_THREADS];
  const int width = static_cast<int>(job.lanes), thread = static_cast<int>(threadIdx.x);
  const int groups = static_cast<int>(blockDim.x) / width, group = thread / width, lane = thread % width;
  const long long chunks = job.chunks, terms = job.terms;
  const long long run = chunks > 1 ? quotient(terms + chunks - 1, chunks) : terms;
  const long long slots = job.outputs * chunks, stride = static_cast<long long>(gridDim.x) * groups;

  for (long long block = static_cast<long long>(blockIdx.x) * groups; block < slots; block += stride) {
    const long long slot = block + group;
    const bool busy = group < groups && slot < slots;
    const long long chunk = chunks > 1 ? quotient(slot, job.outputs) : 0, output = slot - chunk * job.outputs;
    Sum sum{};
    if (busy) {
      Offsets<N> base{};
      descend(base, job.nest, 0, static_cast<int>(job.nest.kept) - 1, output);
      const long long begin = chunk * run + lane, end = (chunk + 1) * run < terms ? (chunk + 1) * run : terms;
      if (terms > 1) {
        sum = sum_terms<Sum, ALIGNED>(job.nest, base, begin, end, job.lanes, value);
      } else if (begin < end) {
        sum = value(base);  // not 0 + value: -0 stays
      }
    }
    if (width > 1) {
      partial[thread] = sum;
      for (int half = width / 2; half > 0; half /= 2) {
        synchronise(2 * half);
        if (lane < half) partial[thread] += partial[thread + half];
      }
      sum = partial[thread];
      synchronise(width);  // before the next round overwrites what a slower lane still reads
    }
    if (busy && lane == 0) out[output * chunks + chunk] = static_cast<Out>(sum);
  }
}
