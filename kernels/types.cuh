// What every kernel shares, first part: element types, and the types in which they are added up.
// source.py puts the five .cuh files in front of each .cu file. They include nothing, so NVRTC needs no header, and g++
// compiles the same text for the tests through tests/simulated/shim.h.

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
