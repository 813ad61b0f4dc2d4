// The gradient reduction that follows a backward pass, in one launch: partial sums are added up row by
// row, in their order, and float32 sums are cast to the dtype of what they are the gradients of.
#include <cuda_runtime.h>

#include <algorithm>

#include "check.cuh"
#include "launch.h"
#include "math.cuh"

namespace swin_umamba {
namespace {

constexpr int kThreads = 256, kEach = 4;  // values per thread

__host__ __device__ int64_t blocks_of(const Reduction& r) {
  return (r.count + kThreads * kEach - 1) / (kThreads * kEach);
}

__device__ float4 row_of(const float* from) { return *reinterpret_cast<const float4*>(from); }

__device__ void store(void* to, int64_t i, int dtype, float4 v) {
  if (dtype == kFloat32) {
    *reinterpret_cast<float4*>(static_cast<float*>(to) + i) = v;
  } else if (dtype == kFloat16) {
    __half2 pair[2] = {__floats2half2_rn(v.x, v.y), __floats2half2_rn(v.z, v.w)};
    *reinterpret_cast<uint2*>(static_cast<__half*>(to) + i) = *reinterpret_cast<uint2*>(pair);
  } else {
    __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(v.x, v.y), __floats2bfloat162_rn(v.z, v.w)};
    *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(to) + i) = *reinterpret_cast<uint2*>(pair);
  }
}

__global__ void __launch_bounds__(kThreads) reduction_kernel(const __grid_constant__ Reductions all) {
  int64_t block = blockIdx.x;
  int which = 0;
  while (block >= blocks_of(all.parts[which])) block -= blocks_of(all.parts[which++]);
  const Reduction& r = all.parts[which];
  const int64_t i = (block * kThreads + threadIdx.x) * kEach;
  if (r.vectors && i < r.count) {
    float4 sum = row_of(r.from + i);
#pragma unroll 4
    for (int row = 1; row < r.rows; ++row) {
      const float4 v = row_of(r.from + row * r.count + i);
      sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    store(r.to, i, r.dtype,
          make_float4(r.scale * sum.x, r.scale * sum.y, r.scale * sum.z, r.scale * sum.w));
    return;
  }
  for (int64_t j = i; j < min(i + kEach, r.count); ++j) {
    float sum = r.from[j];
    for (int row = 1; row < r.rows; ++row) sum += r.from[row * r.count + j];
    store_from_float(r.to, j, r.dtype, r.scale * sum);
  }
}

}  // namespace

void launch_reductions(Reductions all, std::uintptr_t stream) {
  int64_t grid = 0;
  for (int i = 0; i < all.count; ++i) {
    Reduction& r = all.parts[i];
    const auto addresses = reinterpret_cast<std::uintptr_t>(r.from) | reinterpret_cast<std::uintptr_t>(r.to);
    r.vectors = addresses % kAlignment == 0 && r.count % kEach == 0;
    grid += blocks_of(r);
  }
  if (grid == 0) return;
  reduction_kernel<<<static_cast<unsigned>(grid), kThreads, 0, reinterpret_cast<cudaStream_t>(stream)>>>(all);
  check(cudaGetLastError(), "launching the gradient reduction");
}

}  // namespace swin_umamba
