// Fourth part: sums over nested loops, by one thread or by several that share an output.

// So many terms are read at once: additions wait for each other, loads need not. Of packs of N arrays 4 in all, of
// single elements 8. With 4 packs of each, 2 arrays took 90 registers and 4 took 126 (float32, sm_90), so that fewer
// threads would run. The compiler moves no load to before a branch: nor those of packs that may lie anywhere, nor one
// that may be left out.
template <typename Access, typename T, int N>
constexpr int AT_ONCE = Access::ALIGNED ? (Access::WIDTH < WIDE<T> ? 8 : 4) / N : 1;

// From one term to that `lanes` further on: `rest` further on in the innermost loop, which is `row` terms long, by
// `step`, or `carried` over into the next turn of the loop around it. It divides only where `plane` terms are used up.
template <int N>
struct Walk {
  long long plane, row, rest, step[N], carried[N];
};

// A sum over N arrays, as it is launched: `terms` index points for each of `outputs` results.
//
// `lanes` threads of a block share an output: thread t has lane t / beside % lanes of it, so that the first threads of
// `beside` neighbouring outputs are neighbours, too. They add up in a fixed tree. With chunks > 1 the terms are cut
// into that many runs, and out[c * outputs + o] receives run c alone, to be added up by a second launch. So the order
// of additions depends on lanes and chunks only, and any grid gives the same bits.
template <int N>
struct SumOf {
  Nest<N> nest;
  Walk<N> walk;
  long long outputs, terms, lanes, beside, chunks, conjugated;
  long long wide, along;  // whether a term is a whole pack, so that the loops count packs; as in Sources
};

// sum of value(base + offset(s)) over s = begin, begin + lanes, ... < end, for at least one summed loop.
template <typename Sum, int TERMS, int N, typename Value>
__device__ Sum sum_terms(const SumOf<N>& job, const Offsets<N>& base, long long begin, long long end, Value value) {
  constexpr int LONGEST = 1 << 30;
  const int first = static_cast<int>(job.nest.kept), last = static_cast<int>(job.nest.kept + job.nest.summed) - 1;
  const int row = static_cast<int>(job.walk.row), rest = static_cast<int>(job.walk.rest);
  const int lanes = static_cast<int>(job.lanes);
  const long long plane = job.walk.plane;
  Sum sum{};
  while (begin < end) {
    Offsets<N> at = base;
    descend(at, job.nest, first, last, begin);
    const long long inside = begin < plane ? begin : begin - quotient(begin, plane) * plane;
    int place = row > 1 ? static_cast<int>(inside - quotient(inside, row) * row) : 0;
    const long long left = end - begin < plane - inside ? end - begin : plane - inside;
    const int stop = left < LONGEST ? static_cast<int>(left) : LONGEST;
    int done = 0;
#pragma unroll 1
    while (done < stop) {
      Sum terms[TERMS];
      bool is_term[TERMS];
#pragma unroll
      for (int u = 0; u < TERMS; ++u) {
        is_term[u] = done < stop;
        terms[u] = value(at);  // behind the last term that one again, which is not added
        if (is_term[u]) done += lanes;
        place += rest;
        const bool carries = place >= row;
        if (carries) place -= row;
        for (int n = 0; n < N; ++n) {
          const long long step = carries ? job.walk.carried[n] : job.walk.step[n];
          at.of[n] += done < stop ? step : 0;
        }
      }
#pragma unroll
      for (int u = 0; u < TERMS; ++u) {
        if (is_term[u]) sum += terms[u];
      }
    }
    begin += done;
  }
  return sum;
}

// store(c * outputs + o, sum of value(offset(o, s)) over the s of chunk c) for every output o and chunk c. A thread
// reads TERMS terms at once. `combine` adds up the sums of the lanes of an output, for the first of them; all threads
// of a block come to it together.
template <typename Sum, int TERMS, int N, typename Value, typename Combine, typename Store>
__device__ void sum_nest(const SumOf<N>& job, Value value, Combine combine, Store store) {
  const int lanes = static_cast<int>(job.lanes), beside = static_cast<int>(job.beside), team = lanes * beside;
  const int thread = static_cast<int>(threadIdx.x), teams = static_cast<int>(blockDim.x) / team;
  const int group = thread / team * beside + thread % beside, groups = teams * beside;
  const int lane = group < groups ? thread / beside % lanes : lanes;  // of none
  const long long chunks = job.chunks, terms = job.terms, slots = job.outputs * chunks;
  const long long run = chunks > 1 ? quotient(terms + chunks - 1, chunks) : terms;
  const long long step = static_cast<long long>(gridDim.x) * groups;

  for (long long block = static_cast<long long>(blockIdx.x) * groups; block < slots; block += step) {
    const long long slot = block + group;
    const bool busy = lane < lanes && slot < slots;
    const long long chunk = chunks > 1 ? quotient(slot, job.outputs) : 0, output = slot - chunk * job.outputs;
    Sum sum{};
    if (busy) {
      Offsets<N> base{};
      descend(base, job.nest, 0, static_cast<int>(job.nest.kept) - 1, output);
      const long long begin = chunk * run + lane, end = (chunk + 1) * run < terms ? (chunk + 1) * run : terms;
      if (terms > 1) {
        sum = sum_terms<Sum, TERMS>(job, base, begin, end, value);
      } else if (begin < end) {
        sum = value(base);  // not 0 + value: -0 stays
      }
    }
    if (lanes > 1) sum = combine(sum, lane);
    if (busy && lane == 0) store(slot, sum);
  }
}
