// Second part: nested loops with a stride for each array, and how a thread finds its place in them.

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
