// First part of contract.cu and contract_small.cu, which say how much each thread does: the launch's argument, and how
// a block's threads bring tiles to shared memory and write results from there.
constexpr int WIDTH = sizeof(Sum) < 4 ? 4 : WIDE<Sum>;  // elements that one access brings from shared memory
constexpr int CAPACITY = SHARED_BYTES / (4 * WORDS), WARP = 32;
// Lines of a part that are gone over together.
constexpr int GROUP = 4, LEFT_GROUP = LEFT % 4 == 0 ? 4 : LEFT % 2 == 0 ? 2 : 1, RIGHT_GROUP = RIGHT % 2 == 0 ? 2 : 1;

// The order in which threads go over a tile as an array has it: `columns` neighbours in each of `lines`, of which
// `step` are gone over at once, by a thread `each` in turn, a multiple of GROUP. The loops first .. middle - 1 of the
// nest run over lines, middle .. end - 1 over columns. The lines' places begin at `begin` of the block's list, those of
// a thread `pitch` apart from the next one's.
//
// `access` says whether columns are packs of WIDTH elements that are neighbours in the array, which begins at a pack.
// In shared memory these lie so many bytes `beside` the first of their pack; a WHOLE pack is one there, too.
enum { SINGLE, SPREAD, WHOLE };
struct OrderOf {
  long long columns, lines, step, each, first, middle, end, begin, pitch, access, beside[4];
};

// The loops of the nest: those over tiles, of b, m, n and k in turn, with strides in src0, src1 and out; then those
// over a tile as src0, src1 and out have it, with strides in the array, in shared memory, and along the summed axis
// whose last tile is shorter, if there is one.
struct ContractOf {
  Nest<3> nest;
  long long loops, result_loops;       // of those over tiles: all; those that are not summed
  long long extent[WARP], last[WARP];  // of each: elements of a tile along it; as `place_tiles` says
  long long steps, rest;               // tiles along the sum; elements of the last one along that axis
  OrderOf order[3];
  long long depth, lanes, team, across, down;  // summed elements of a tile; threads along it; of a lane; along each
  long long rows, columns;                     // of results of a thread: packs, elements
  long long pitch[3], begin[3];                // in shared memory: of a summed element, of a column of results
  long long keeps;                             // whether src1's tile stays while tiles change
  long long slots, run, chunks;                // tiles of results; those along the sum of a chunk; chunks
  long long outputs, conjugated;
};

using Packed = Pack<Sum, WIDTH>;

// Where an element lies: in its array, in elements; in shared memory, in bytes.
struct alignas(8) Place {
  int array;
  unsigned tile;
};

// What lies so many bytes behind a tile's first element. Sums of places have 32 bits, for fewer instructions.
template <typename T>
__device__ T& at(Sum* tile, unsigned bytes) {
  return *reinterpret_cast<T*>(reinterpret_cast<char*>(tile) + bytes);
}

// The places of all lines; how far these, and the threads' columns of src0 and src1, lie along the summed axis whose
// last tile is shorter; of each thread, which share of the sum it has, and where its results go in shared memory.
struct List {
  Place places[MAX_LINES];
  unsigned short along[MAX_LINES], columns_along[2][MAX_THREADS];
  unsigned short lanes[MAX_THREADS], results[MAX_THREADS];
};

__device__ inline Place place_of(const ContractOf& job, long long first, long long end, int index, int& along) {
  Offsets<3> found{};
  descend(found, job.nest, static_cast<int>(first), static_cast<int>(end) - 1, index);
  along = static_cast<int>(found.of[2]);
  return {static_cast<int>(found.of[0]), static_cast<unsigned>(found.of[1]) * static_cast<unsigned>(sizeof(Sum))};
}

// A thread's part of a tile: one column, and so many `lines`, none if the thread is left over. In the list they are
// rounded up to whole groups, by the thread's first one.
struct Part {
  int array, lines;
  unsigned tile;
  const Place* places;

  __device__ Part(const ContractOf& job, int number, List& list) {
    const OrderOf& order = job.order[number];
    const int thread = static_cast<int>(threadIdx.x), columns = static_cast<int>(order.columns);
    const int step = static_cast<int>(order.step), each = static_cast<int>(order.each), first = thread / columns;
    int along;
    const Place column = place_of(job, order.middle, order.end, thread - first * columns, along);
    if (number < 2) list.columns_along[number][thread] = static_cast<unsigned short>(along);
    array = column.array;
    tile = column.tile + static_cast<unsigned>(job.begin[number] * sizeof(Sum));
    lines = first < step ? (static_cast<int>(order.lines) - first + step - 1) / step : 0;
    places = list.places + order.begin + (lines ? first * static_cast<int>(order.pitch) : 0);
    for (int n = thread; n < step * each; n += MAX_THREADS) {
      const int other = n / each, line = other + n % each * step;
      const long long at = order.begin + other * order.pitch + n % each;
      int further;
      list.places[at] = place_of(job, order.first, order.middle, line < order.lines ? line : other, further);
      list.along[at] = static_cast<unsigned short>(further);
    }
  }
};

// The same address in global memory, whose sum the compiler cannot take apart again. NVRTC before 13.5 takes no other
// addresses than those of bytes for global ones.
template <typename T>
__device__ T* opaque(T* address) {
#ifdef __CUDACC__
  const char* bytes = reinterpret_cast<const char*>(address);
  asm("" : "+l"(bytes));
  __builtin_assume(__isGlobal(bytes));
  return const_cast<T*>(reinterpret_cast<const T*>(bytes));
#else
  return address;
#endif
}

// Which elements of a part the last tile along the sum has, if it is shorter: then it is at an EDGE.
template <bool EDGE>
struct Inside {
  const unsigned short* lines;
  int most;

  __device__ Inside(const List& list, int number, const Part& part, long long rest)
      : lines(list.along + (part.places - list.places)),
        most(static_cast<int>(rest) - list.columns_along[number][threadIdx.x]) {}

  __device__ bool has(int line) const { return !EDGE || lines[line] < most; }
};

__device__ inline unsigned beside(const OrderOf& order, int element) {
  return element ? static_cast<unsigned>(order.beside[element]) : 0;
}

// Begins to load a thread's part of a tile. What is not inside is loaded from where the tile begins: so no jump stands
// between the loads.
template <int GROUP, bool EDGE, int PACKS>
__device__ void load_elements(Pack<In, WIDTH> (&held)[PACKS], const Part& part, const In* from,
                              const Inside<EDGE>& inside) {
  from = opaque(from + part.array);
#pragma unroll
  for (int first = 0; first < PACKS * WIDTH; first += GROUP) {
    if (first >= part.lines) break;
    int offset[GROUP];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) offset[n] = part.places[first + n].array;
#pragma unroll
    for (int n = 0; n < GROUP; ++n) {
      held[(first + n) / WIDTH].of[(first + n) % WIDTH] = from[inside.has(first + n) ? offset[n] : -part.array];
    }
  }
}

// The same, of packs.
template <bool EDGE, int PACKS>
__device__ void load_packs(Pack<In, WIDTH> (&held)[PACKS], const Part& part, const In* from,
                           const Inside<EDGE>& inside) {
  from = opaque(from + part.array);
  int offset[PACKS];
#pragma unroll
  for (int n = 0; n < PACKS; ++n) offset[n] = part.places[n].array;
#pragma unroll
  for (int n = 0; n < PACKS; ++n) {
    if (n >= part.lines) break;
    held[n] = load_pack<WIDTH>(from + (inside.has(n) ? offset[n] : -part.array), true);
  }
}

// Stores a part that was loaded so to shared memory, zeros for what is not inside.
template <int GROUP, bool EDGE, int PACKS>
__device__ void store_elements(Sum* tile, const Part& part, const Pack<In, WIDTH> (&held)[PACKS], bool conjugated,
                               const Inside<EDGE>& inside) {
#pragma unroll
  for (int first = 0; first < PACKS * WIDTH; first += GROUP) {
    if (first >= part.lines) break;
    unsigned place[GROUP];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) place[n] = part.tile + part.places[first + n].tile;
#pragma unroll
    for (int n = 0; n < GROUP; ++n) {
      const In element = held[(first + n) / WIDTH].of[(first + n) % WIDTH];
      const Sum value = inside.has(first + n) ? static_cast<Sum>(element) : Sum{};
      at<Sum>(tile, place[n]) = conjugated ? conjugate(value) : value;
    }
  }
}

template <bool EDGE, int PACKS>
__device__ void store_packs(Sum* tile, const OrderOf& order, const Part& part, const Pack<In, WIDTH> (&held)[PACKS],
                            bool conjugated, const Inside<EDGE>& inside) {
#pragma unroll
  for (int n = 0; n < PACKS; ++n) {
    if (n >= part.lines) break;
    const unsigned first = part.tile + part.places[n].tile;
    Packed value = inside.has(n) ? rounded<Sum>(held[n]) : Packed{};
    if (conjugated) {
#pragma unroll
      for (int w = 0; w < WIDTH; ++w) value.of[w] = conjugate(value.of[w]);
    }
    if (order.access == WHOLE) {
      at<Packed>(tile, first) = value;
    } else {
#pragma unroll
      for (int w = 0; w < WIDTH; ++w) at<Sum>(tile, first + beside(order, w)) = value.of[w];
    }
  }
}

// Loads or stores a part by elements or packs.
template <int GROUP, bool EDGE, int PACKS>
__device__ void load_part(Pack<In, WIDTH> (&held)[PACKS], const OrderOf& order, const Part& part, const In* from,
                          const Inside<EDGE>& inside) {
  if (WIDTH == 1 || order.access == SINGLE) {
    load_elements<GROUP>(held, part, from, inside);
  } else {
    load_packs(held, part, from, inside);
  }
}

template <int GROUP, bool EDGE, int PACKS>
__device__ void store_part(Sum* tile, const OrderOf& order, const Part& part, const Pack<In, WIDTH> (&held)[PACKS],
                           bool conjugated, const Inside<EDGE>& inside) {
  if (WIDTH == 1 || order.access == SINGLE) {
    store_elements<GROUP>(tile, part, held, conjugated, inside);
  } else {
    store_packs(tile, order, part, held, conjugated, inside);
  }
}

// Writes a part of the results.
__device__ inline void write_part(Out* to, Sum* tile, const OrderOf& order, const Part& part) {
  to = opaque(to + part.array);
  if (WIDTH == 1 || order.access == SINGLE) {
#pragma unroll 1
    for (int first = 0; first < part.lines; first += GROUP) {
      Place place[GROUP];
      Sum value[GROUP];
#pragma unroll
      for (int n = 0; n < GROUP; ++n) place[n] = part.places[first + n];
#pragma unroll
      for (int n = 0; n < GROUP; ++n) value[n] = at<Sum>(tile, part.tile + place[n].tile);
#pragma unroll
      for (int n = 0; n < GROUP; ++n) {
        if (first + n < part.lines) to[place[n].array] = static_cast<Out>(value[n]);
      }
    }
    return;
  }
#pragma unroll 1
  for (int line = 0; line < part.lines; ++line) {
    const Place place = part.places[line];
    const unsigned first = part.tile + place.tile;
    Packed value;
    if (order.access == WHOLE) {
      value = at<Packed>(tile, first);
    } else {
#pragma unroll
      for (int w = 0; w < WIDTH; ++w) value.of[w] = at<Sum>(tile, first + beside(order, w));
    }
    store_pack(to + place.array, rounded<Out>(value), true);
  }
}

template <bool VALUE>
struct Constant {
  static constexpr bool value = VALUE;
};

// run(Constant<..>()) says whether tiles are at the edge.
template <typename Run>
__device__ void with_edge(bool is_edge, Run run) {
  if (is_edge) {
    run(Constant<true>());
  } else {
    run(Constant<false>());
  }
}
