// out[m][p] = the address of matrix p of array m: of every A, B and C of a batch that lies along several axes, as in
// `bqhd,bkhd->bhqk`, for cublasGemmBatchedEx. So nothing is copied from the host, and a graph can hold it. Every `each`
// products, which are one call's, take `slots` places, so that the pointers of each call begin at a multiple of 16 bytes.
//
// Launch: any 1-D grid; one thread per product at a time. The sources' elements are bytes, as are the strides; of them
// only the addresses are taken.
// Moves products * OPERANDS * 8 bytes, with no flops. On H200, where a copy runs at 4.3 TB/s: the pointers of 65536
// products are 1.57 MB, 0.4 us at the least, a tenth of a launch.
struct PointersOf {
  Nest<OPERANDS> matrices;  // the axes along which they lie
  long long products, each, slots;
  long long length;  // places of one array
};

extern "C" __global__ void ENTRY(const __grid_constant__ PointersOf job, SOURCES, Out* out) {
  const In* const first[] = {SOURCE_NAMES};
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long p = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; p < job.products; p += step) {
    Offsets<OPERANDS> at{};
    descend(at, job.matrices, 0, static_cast<int>(job.matrices.kept) - 1, p);
    const long long place = p + quotient(p, job.each) * (job.slots - job.each);
#pragma unroll
    for (int m = 0; m < OPERANDS; ++m) out[m * job.length + place] = reinterpret_cast<Out>(first[m] + at.of[m]);
  }
}
