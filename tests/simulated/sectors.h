// Compiled after shim.h where accesses to memory are counted: g++ calls these hooks of its ThreadSanitizer before each
// load and store of the kernels, and no runtime of its own is linked. What lies outside of the arrays of a launch (its
// shared memory, stacks and argument) is not recorded.
#include <cstdlib>

namespace simulated {

struct Access {
  unsigned long long instruction, address;
  unsigned block, thread, bytes, is_store;
};

struct Extent {
  unsigned long long first, end;
};

static const Extent* arrays;
static unsigned number_of_arrays;
static Access* accesses;
static std::size_t recorded, room;

__attribute__((no_sanitize("thread"))) static void record(void* address, unsigned bytes, bool is_store, void* caller) {
  const auto place = reinterpret_cast<unsigned long long>(address);
  for (unsigned n = 0; n < number_of_arrays; ++n) {
    if (place < arrays[n].first || place >= arrays[n].end) continue;
    if (recorded == room) {
      room = room ? 2 * room : 1 << 16;
      accesses = static_cast<Access*>(std::realloc(accesses, room * sizeof(Access)));
    }
    accesses[recorded++] = {reinterpret_cast<unsigned long long>(caller), place, blockIdx.x, threadIdx.x, bytes, is_store};
    return;
  }
}

}  // namespace simulated

#define HOOK(name, ...) extern "C" __attribute__((no_sanitize("thread"))) void __tsan_##name(__VA_ARGS__)
#define RECORD(bytes, is_store) simulated::record(address, bytes, is_store, __builtin_return_address(0))
#define HOOKS(bytes)                                                       \
  HOOK(read##bytes, void* address) { RECORD(bytes, false); }               \
  HOOK(write##bytes, void* address) { RECORD(bytes, true); }               \
  HOOK(unaligned_read##bytes, void* address) { RECORD(bytes, false); }     \
  HOOK(unaligned_write##bytes, void* address) { RECORD(bytes, true); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
HOOK(read_range, void* address, std::size_t bytes) { RECORD(static_cast<unsigned>(bytes), false); }
HOOK(write_range, void* address, std::size_t bytes) { RECORD(static_cast<unsigned>(bytes), true); }
HOOK(init) {}
HOOK(func_entry, void*) {}
HOOK(func_exit) {}

// Begins to record, in these arrays.
extern "C" void record_accesses(const simulated::Extent* extents, unsigned number) {
  simulated::arrays = extents;
  simulated::number_of_arrays = number;
  simulated::recorded = 0;
}

// Ends it, and gives what was recorded.
extern "C" const simulated::Access* recorded_accesses(std::size_t* number) {
  simulated::number_of_arrays = 0;
  *number = simulated::recorded;
  return simulated::accesses;
}
