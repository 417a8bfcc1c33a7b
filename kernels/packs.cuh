// Third part: several neighbours at once, as one load of 16 bytes brings them.

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

template <typename T, int WIDTH>
__device__ T total(const Pack<T, WIDTH>& pack) {
  T sum = pack.of[0];
#pragma unroll
  for (int w = 1; w < WIDTH; ++w) sum += pack.of[w];
  return sum;
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
