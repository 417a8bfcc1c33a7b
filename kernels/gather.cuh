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
struct OrderOf {
  long long columns, lines, step, each, first, middle, end, begin, pitch;
};

// The loops of the nest: those over tiles, of b, m, n and k in turn, with strides in src0, src1 and out; then those
// over a tile as src0, src1 and out have it, with strides in the array, in shared memory, and along the summed axis
// whose last tile is shorter, if there is one.
struct ContractOf {
  Nest<3> nest;
  long long loops, result_loops;                    // of those over tiles: all; those that are not summed
  long long below[WARP], extent[WARP], last[WARP];  // of each, as in `Loop`; `below` as a reciprocal
  long long steps, rest;                            // tiles along the sum; elements of the last one along that axis
  OrderOf order[3];
  long long depth, lanes, team, across, down;   // summed elements of a tile; threads along it; of a lane; along each
  long long rows, columns;                      // of results of a thread: packs, elements
  long long pitch[3], begin[3];                 // in shared memory: of a summed element, of a column of results
  long long keeps;                              // whether src1's tile stays while tiles change
  long long slots, run, chunks;                 // tiles of results; those along the sum of a chunk; chunks
  long long outputs, conjugated;
};

// Where an element lies in its array and in shared memory.
struct alignas(8) Place {
  int array, tile;
};

// The places of all lines, and how far they lie along the summed axis whose last tile is shorter.
struct List {
  Place places[MAX_LINES];
  unsigned short along[MAX_LINES];
};

__device__ inline Place place_of(const ContractOf& job, long long first, long long end, int index, int& along) {
  Offsets<3> at{};
  descend(at, job.nest, static_cast<int>(first), static_cast<int>(end) - 1, index);
  along = static_cast<int>(at.of[2]);
  return {static_cast<int>(at.of[0]), static_cast<int>(at.of[1])};
}

// A thread's part of a tile: one column, and so many `lines`, none if the thread is left over. In the list they are
// rounded up to whole groups, by the thread's first one.
struct Part {
  int array, tile, lines, along;
  const Place* places;

  __device__ Part(const ContractOf& job, int number, List& list) {
    const OrderOf& order = job.order[number];
    const int thread = static_cast<int>(threadIdx.x), columns = static_cast<int>(order.columns);
    const int step = static_cast<int>(order.step), each = static_cast<int>(order.each), first = thread / columns;
    const Place column = place_of(job, order.middle, order.end, thread - first * columns, along);
    array = column.array;
    tile = column.tile + static_cast<int>(job.begin[number]);
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

  __device__ Inside(const List& list, const Part& part, long long rest)
      : lines(list.along + (part.places - list.places)), most(static_cast<int>(rest) - part.along) {}

  __device__ bool has(int line) const { return !EDGE || lines[line] < most; }
};

// Begins to load a thread's part of a tile. What is not inside is loaded from where the tile begins: so no jump stands
// between the loads.
template <int GROUP, bool EDGE, int LOADS>
__device__ void load_part(In (&held)[LOADS], const Part& part, const In* from, const Inside<EDGE>& inside) {
  from += part.array;
#pragma unroll
  for (int first = 0; first < LOADS; first += GROUP) {
    if (first >= part.lines) break;
    int offset[GROUP];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) offset[n] = part.places[first + n].array;
#pragma unroll
    for (int n = 0; n < GROUP; ++n) held[first + n] = from[inside.has(first + n) ? offset[n] : -part.array];
  }
}

// Stores a part that was loaded so to shared memory, zeros for what is not inside.
template <int GROUP, bool EDGE, int LOADS>
__device__ void store_part(Sum* tile, const Part& part, const In (&held)[LOADS], bool conjugated,
                           const Inside<EDGE>& inside) {
  tile += part.tile;
#pragma unroll
  for (int first = 0; first < LOADS; first += GROUP) {
    if (first >= part.lines) break;
    int place[GROUP];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) place[n] = part.places[first + n].tile;
#pragma unroll
    for (int n = 0; n < GROUP; ++n) {
      const Sum value = inside.has(first + n) ? static_cast<Sum>(held[first + n]) : Sum{};
      tile[place[n]] = conjugated ? conjugate(value) : value;
    }
  }
}

// Writes a part of the results.
__device__ inline void write_part(Out* to, const Sum* tile, const Part& part) {
  to += part.array;
  tile += part.tile;
#pragma unroll 1
  for (int first = 0; first < part.lines; first += GROUP) {
    Place place[GROUP];
    Sum value[GROUP];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) place[n] = part.places[first + n];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) value[n] = tile[place[n].tile];
#pragma unroll
    for (int n = 0; n < GROUP; ++n) {
      if (first + n < part.lines) to[place[n].array] = static_cast<Out>(value[n]);
    }
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
