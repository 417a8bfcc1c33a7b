// What every kernel shares: element types, accumulators, and walking over nested loops with strides.
// source.py puts this text in front of each .cu file. It includes nothing, so NVRTC needs no header, and g++ compiles
// the same text for the tests through tests/simulated/shim.h.

// ---- Element types -------------------------------------------------------------------------------------------------

#ifdef __CUDACC__  // the host shim brings its own pair
__device__ inline float half_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ inline unsigned short float_to_half(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#endif

struct half_t {
  unsigned short bits;
  half_t() = default;
  __device__ explicit half_t(float value) : bits(float_to_half(value)) {}
  __device__ operator float() const { return half_to_float(bits); }
};

union FloatBits {
  float value;
  unsigned bits;
};

struct bfloat16_t {  // the upper half of a float
  unsigned short bits;
  bfloat16_t() = default;
  __device__ explicit bfloat16_t(float value) {
    FloatBits word;
    word.value = value;
    const bool nan = (word.bits & 0x7fffffffu) > 0x7f800000u;
    const unsigned nearest_even = word.bits + 0x7fffu + (word.bits >> 16 & 1u);
    bits = static_cast<unsigned short>((nan ? word.bits | 0x400000u : nearest_even) >> 16);
  }
  __device__ operator float() const {
    FloatBits word;
    word.bits = static_cast<unsigned>(bits) << 16;
    return word.value;
  }
};

struct bool_t {  // numpy's bool: any nonzero byte is true, but C++'s own bool may not hold other bytes than 0 and 1
  unsigned char byte;
  bool_t() = default;
  __device__ explicit bool_t(bool value) : byte(value) {}
  __device__ operator bool() const { return byte != 0; }
};

template <typename Real>
struct complex_t {
  Real real, imag;
  __device__ complex_t& operator+=(const complex_t& other) {
    real += other.real;
    imag += other.imag;
    return *this;
  }
};

template <typename Real>
__device__ complex_t<Real> operator*(const complex_t<Real>& a, const complex_t<Real>& b) {
  return {a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real};
}

// The complex conjugate; a number of any other type is its own.
template <typename T>
__device__ T conjugate(const T& x) {
  return x;
}

template <typename Real>
__device__ complex_t<Real> conjugate(const complex_t<Real>& x) {
  return {x.real, -x.imag};
}

// Where sums and products of a type are formed. A cast in is exact, a cast out rounds or wraps once. Signed integers
// pass as unsigned ones: wrapping arithmetic is the same bit for bit, and defined.
template <typename T> struct Accumulator { using type = T; };
template <> struct Accumulator<half_t> { using type = float; };
template <> struct Accumulator<bfloat16_t> { using type = float; };
template <> struct Accumulator<bool_t> { using type = bool; };  // bool's own * is AND, its += is OR
template <> struct Accumulator<unsigned char> { using type = unsigned; };
template <> struct Accumulator<unsigned short> { using type = unsigned; };

// ---- Nested loops --------------------------------------------------------------------------------------------------

constexpr int MAX_LOOPS = 64;
constexpr int MAX_THREADS = 256;  // of a block

// The first `kept` loops run over the result in C order, the next `summed` loops are summed; outermost first.
// Strides count elements, may be negative, and are 0 where an operand lacks the loop.
template <int N>
struct Nest {
  long long kept, summed;
  long long size[MAX_LOOPS];
  long long reciprocal[MAX_LOOPS];  // of the sizes, for `quotient_by`
  long long stride[N][MAX_LOOPS];
};

template <int N>
struct Offsets {
  long long of[N];  // one per operand
};

// a / b for non-negative numbers. Most fit 32 bits, where the GPU divides several times faster.
__device__ inline long long quotient(long long a, long long b) {
  if ((a | b) >> 32) return a / b;
  return static_cast<unsigned>(a) / static_cast<unsigned>(b);
}

// a / size for a < 2**31 by one multiplication: source.py makes the shift and the 32-bit factor that a reciprocal is.
__device__ inline unsigned quotient_by(long long reciprocal, unsigned a) {
  const unsigned factor = static_cast<unsigned>(reciprocal), shift = static_cast<unsigned>(reciprocal >> 32);
  return (static_cast<unsigned>(static_cast<unsigned long long>(a) * factor >> 32) + a) >> shift;
}

// Adds one loop's share: `steps` strides in every operand.
template <int N>
__device__ void advance(Offsets<N>& at, const Nest<N>& nest, int loop, long long steps) {
  for (int n = 0; n < N; ++n) at.of[n] += steps * nest.stride[n][loop];
}

// Adds the shares of the loops first..last, which together stand at position `index`. The outermost needs no division,
// and the others divide only while the position needs more than 31 bits.
template <int N>
__device__ void descend(Offsets<N>& at, const Nest<N>& nest, int first, int last, long long index) {
#pragma unroll 1  // a division dwarfs the jump, and copies of it fill the instruction cache
  for (; last > first && index >> 31; --last) {
    const long long outer = index / nest.size[last];
    advance(at, nest, last, index - outer * nest.size[last]);
    index = outer;
  }
#pragma unroll 1
  for (; last > first; --last) {
    const unsigned here = static_cast<unsigned>(index), outer = quotient_by(nest.reciprocal[last], here);
    advance(at, nest, last, here - outer * static_cast<unsigned>(nest.size[last]));
    index = outer;
  }
  if (first <= last) advance(at, nest, first, index);
}

// ---- Several elements at once ---------------------------------------------------------------------------------------

// As many elements as one load of 16 bytes brings.
template <typename T>
constexpr int WIDE = sizeof(T) < 16 ? 16 / static_cast<int>(sizeof(T)) : 1;

template <typename T, int WIDTH>
struct alignas(WIDTH * sizeof(T)) Pack {
  T of[WIDTH];
  __device__ Pack& operator+=(const Pack& other) {
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) of[w] += other.of[w];
    return *this;
  }
};

template <typename Out, typename T, int WIDTH>
__device__ Pack<Out, WIDTH> rounded(const Pack<T, WIDTH>& pack) {
  Pack<Out, WIDTH> result;
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) result.of[w] = static_cast<Out>(pack.of[w]);
  return result;
}

template <int WIDTH, typename T>
__device__ bool is_aligned(const T* address) {
  return reinterpret_cast<unsigned long long>(address) % (WIDTH * sizeof(T)) == 0;
}

// How many blocks of a sum a multiprocessor shall hold: registers are spared for that, but none is spilled to memory.
// With 3, 4 loads of 16 bytes each are 48 KB under way. By the compiler's report for sm_80 and sm_90; not measured yet.
template <typename T, int N>
constexpr int RESIDENT = WIDE<T> <= 8 && WIDE<T> * N <= 24 ? 3 : 2;

// How arrays are read: WIDTH neighbours at once, all of them known to be aligned or not.
template <int WIDTH_, bool ALIGNED_>
struct Access {
  static constexpr int WIDTH = WIDTH_;
  static constexpr bool ALIGNED = ALIGNED_;
};

// run(Access<...>()) as a job wants its arrays read.
template <typename T, int N, typename Run>
__device__ void with_access(bool wide, const T* const (&src)[N], Run run) {
  bool aligned = true;
#pragma unroll
  for (int n = 0; n < N; ++n) aligned = aligned && is_aligned<WIDE<T>>(src[n]);
  if (WIDE<T> == 1 || !wide) {
    run(Access<1, true>());
  } else if (aligned) {
    run(Access<WIDE<T>, true>());
  } else {
    run(Access<WIDE<T>, false>());
  }
}

// WIDTH neighbours, by one access to memory where they are aligned.
template <int WIDTH, typename T>
__device__ Pack<T, WIDTH> load_pack(const T* src, bool aligned) {
  Pack<T, WIDTH> pack;
  if (aligned) {
    pack = *reinterpret_cast<const Pack<T, WIDTH>*>(src);
  } else {
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) pack.of[w] = src[w];
  }
  return pack;
}

template <typename T, int WIDTH>
__device__ void store_pack(T* out, const Pack<T, WIDTH>& pack, bool aligned) {
  if (aligned) {
    *reinterpret_cast<Pack<T, WIDTH>*>(out) = pack;
  } else {
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) out[w] = pack.of[w];
  }
}

// N arrays, read WIDTH neighbours along the innermost loop at once. By a bit per array `along` says which of them have
// neighbours there (the others lack that loop), `conjugated` which enter as their complex conjugates (real types ignore
// it). If all are known to be ALIGNED, no branch stands between the loads, so that they can be under way together.
template <typename T, int N, int WIDTH, bool ALIGNED>
struct Sources {
  using Sum = typename Accumulator<T>::type;
  const T* src[N];
  long long along, conjugated;
  bool aligned[N];

  __device__ Sources(const T* const (&sources)[N], long long along_bits, long long conjugated_bits)
      : along(along_bits), conjugated(conjugated_bits) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      src[n] = sources[n];
      aligned[n] = is_aligned<WIDTH>(sources[n]);
    }
  }

  __device__ Pack<Sum, WIDTH> read(const Offsets<N>& at, int n) const {
    Pack<Sum, WIDTH> pack;
    if (along >> n & 1) {
      pack = rounded<Sum>(load_pack<WIDTH>(src[n] + at.of[n], ALIGNED || aligned[n]));
    } else {
      const Sum same = static_cast<Sum>(src[n][at.of[n]]);
#pragma unroll
      for (int w = 0; w < WIDTH; ++w) pack.of[w] = same;
    }
    if (conjugated >> n & 1) {
#pragma unroll
      for (int w = 0; w < WIDTH; ++w) pack.of[w] = conjugate(pack.of[w]);
    }
    return pack;
  }

  __device__ Pack<Sum, WIDTH> product(const Offsets<N>& at) const {
    Pack<Sum, WIDTH> factor[N];
#pragma unroll
    for (int n = 0; n < N; ++n) factor[n] = read(at, n);  // all of them are under way before the first is needed
#pragma unroll
    for (int n = 1; n < N; ++n) {
#pragma unroll
      for (int w = 0; w < WIDTH; ++w) factor[0].of[w] = static_cast<Sum>(factor[0].of[w] * factor[n].of[w]);
    }
    return factor[0];
  }

  __device__ Pack<Sum, WIDTH> sum(const Offsets<N>& at) const {
    Pack<Sum, WIDTH> term[N];
#pragma unroll
    for (int n = 0; n < N; ++n) term[n] = read(at, n);
#pragma unroll
    for (int n = 1; n < N; ++n) term[0] += term[n];
    return term[0];
  }
};

// ---- Sums ----------------------------------------------------------------------------------------------------------

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

// ---- What is made element by element -------------------------------------------------------------------------------

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
