// Enough of CUDA to run the kernels on the host, one block after another: g++ compiles this text in front of theirs.
//
// The threads of a block run in turn. A thread that reaches a barrier is parked on the fiber (a stack of its own) that
// ran it, and a new fiber carries on with the next thread. So a launch that meets no barrier is a plain loop on one
// fiber, and only waiting threads cost a stack. Barriers that not every thread reaches are errors. A warp runs on until
// the whole block has to meet before the next warp runs at all, so that a missing barrier shows in the results.
#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)
#define __noinline__ __attribute__((noinline))
#define __shared__ static
#define __syncthreads() simulated::wait(__LINE__, false)
#define __syncwarp() simulated::wait(__LINE__, true)
#define __shfl_down_sync(all, value, delta) simulated::shuffle_down(__LINE__, value, delta)

struct Index {
  unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

// Rounds to nearest even by adding the bits below the half's last: exact through denormals, infinities and NaNs.
static float half_to_float(unsigned short bits) {
  const unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, fraction = bits & 0x3ffu;
  const float magnitude = static_cast<float>(fraction) / 16777216.0f;  // a denormal counts units of 2**-24
  unsigned word;
  std::memcpy(&word, &magnitude, 4);
  if (exponent) word = (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  word |= sign;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

static unsigned short float_to_half(float value) {
  unsigned word;
  std::memcpy(&word, &value, 4);
  const unsigned sign = word >> 16 & 0x8000u, magnitude = word & 0x7fffffffu;
  unsigned bits;
  if (magnitude > 0x7f800000u) {
    bits = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x47800000u) {  // 65536 and more
    bits = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2**-14: the smallest normal half; a carry runs into the exponent
    bits = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  } else {  // adding 0.5 makes the float's last bit 2**-24, and the float unit rounds to nearest even
    float positive;
    std::memcpy(&positive, &magnitude, 4);
    positive += 0.5f;
    std::memcpy(&bits, &positive, 4);
    bits -= 0x3f000000u;
  }
  return static_cast<unsigned short>(sign | bits);
}

namespace simulated {

struct Fiber {
  jmp_buf place;
  unsigned thread;  // which thread it runs or holds
  int line;         // of the barrier it is parked at
};

struct Barrier {
  std::vector<Fiber*> parked, gathered;

  bool complete(unsigned expected) {  // moves those who wait to `gathered`
    gathered.clear();
    gathered.swap(parked);
    for (const Fiber* fiber : gathered) {
      if (fiber->line != gathered.front()->line) return false;
    }
    return gathered.size() == expected;
  }
};

struct Call {  // a kernel with its arguments
  void (*run)(const void* kernel, void** args);
  const void* kernel;
  void** args;
};

static jmp_buf scheduler;
static std::vector<Fiber*> idle;
static Barrier block_barrier, warp_barrier[32];
static Fiber* current;
static unsigned started, limit;  // threads that have begun, and that may
static bool descending;          // whether threads take turns from the last to the first
static unsigned every = 1;       // of so many blocks of a launch one runs
static Call call;
static void (*at_barrier)();  // called by each thread that comes to one, if any

static void resume(Fiber* fiber) {
  current = fiber;
  threadIdx.x = fiber->thread;
  if (!_setjmp(scheduler)) _longjmp(fiber->place, 1);
}

static void wait(int line, bool warp) {
  if (at_barrier) at_barrier();
  current->line = line;
  (warp ? warp_barrier[current->thread / 32] : block_barrier).parked.push_back(current);
  if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

// The value that the thread `delta` further on in the warp gives, its own where there is none. All of a warp take part.
template <typename T>
static T shuffle_down(int line, T value, unsigned delta) {
  static T given[1024];
  const unsigned thread = threadIdx.x, other = thread + delta;
  given[thread] = value;
  wait(line, true);
  const T result = other / 32 == thread / 32 && other < blockDim.x ? given[other] : value;
  wait(line, true);  // before a thread gives its next value
  return result;
}

static void work() {  // what a fiber does for ever: begin the threads that may begin, then idle
  for (;;) {
    while (started < limit) {
      current->thread = threadIdx.x = descending ? blockDim.x - 1 - started : started;
      ++started;
      call.run(call.kernel, call.args);
    }
    idle.push_back(current);
    if (!_setjmp(current->place)) _longjmp(scheduler, 1);
  }
}

static void start_fiber() {
  constexpr std::size_t STACK = 64 << 10;
  static std::size_t fibers = 0;
  current = new Fiber;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = new char[STACK];
  context.uc_stack.ss_size = STACK - ++fibers % 64 * 320;  // tops at equal places would share few cache lines
  makecontext(&context, work, 0);
  if (!_setjmp(scheduler)) setcontext(&context);
}

static unsigned warp_size(unsigned warp) { return std::min(32u, blockDim.x - warp * 32); }

// Lets a warp go on alone for as long as it can, so that a __syncwarp where the block should have met shows.
static bool drain(unsigned warp) {
  Barrier& barrier = warp_barrier[warp];
  while (!barrier.parked.empty()) {
    if (!barrier.complete(warp_size(warp))) return false;
    for (Fiber* fiber : barrier.gathered) resume(fiber);
  }
  return true;
}

static bool run_block() {
  const unsigned warps = (blockDim.x + 31) / 32;
  started = limit = 0;
  for (unsigned turn = 0; turn < warps; ++turn) {
    const unsigned warp = descending ? warps - 1 - turn : turn;
    limit += warp_size(warp);
    while (started < limit) {
      if (idle.empty()) {
        start_fiber();
      } else {
        Fiber* fiber = idle.back();
        idle.pop_back();
        resume(fiber);
      }
    }
    if (!drain(warp)) return false;
  }
  while (!block_barrier.parked.empty()) {
    if (!block_barrier.complete(blockDim.x)) return false;
    const auto& fibers = block_barrier.gathered;  // warp by warp, since that is how they came
    for (std::size_t i = 0; i < fibers.size(); ++i) {
      resume(fibers[i]);
      const unsigned warp = fibers[i]->thread / 32;
      const bool last = i + 1 == fibers.size() || fibers[i + 1]->thread / 32 != warp;
      if (last && !drain(warp)) return false;
    }
  }
  return true;
}

static const char* launch(unsigned blocks, unsigned threads, bool last_first) {
  gridDim = {blocks, 1, 1};
  blockDim = {threads, 1, 1};
  descending = last_first;
  for (unsigned block = 0; block < blocks; block += every) {
    blockIdx = {block, 0, 0};
    if (run_block()) continue;
    block_barrier.parked.clear();  // the stacks of those who wait are lost: they stand in the middle of a kernel
    for (Barrier& barrier : warp_barrier) barrier.parked.clear();
    return "threads of one block or warp wait at different barriers, or some wait and some have ended";
  }
  return nullptr;
}

template <typename... P, std::size_t... I>
void apply(void (*kernel)(P...), void** args, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_const_t<P>*>(args[I])...);
}

template <typename... P>
void run(const void* kernel, void** args) {
  apply(reinterpret_cast<void (*)(P...)>(const_cast<void*>(kernel)), args, std::index_sequence_for<P...>());
}

template <typename... P>
const char* launch(void (*kernel)(P...), unsigned blocks, unsigned threads, void** args, bool last_first) {
  call = {run<P...>, reinterpret_cast<const void*>(kernel), args};
  return launch(blocks, threads, last_first);
}

template <typename P>
std::string describe() {
  if (std::is_pointer_v<P>) return "pointer:" + std::to_string(alignof(std::remove_pointer_t<P>)) + " ";
  return (std::is_class_v<P> ? "struct:" : "integer:") + std::to_string(sizeof(P)) + " ";
}

template <typename... P>
const char* signature(void (*)(P...)) {
  static const std::string text = (describe<P>() + ...);
  return text.c_str();
}

}  // namespace simulated

// What Python calls for the kernel `entry`: an error message or null, and a word per parameter.
#define EXPORT(space, entry)                                                                                     \
  extern "C" const char* entry##_launch(unsigned blocks, unsigned threads, void** args, bool last_first) {       \
    return simulated::launch(space::entry, blocks, threads, args, last_first);                                   \
  }                                                                                                              \
  extern "C" const char* entry##_signature() { return simulated::signature(space::entry); }
