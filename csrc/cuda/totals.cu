// What follows a backward pass, in one launch: partial sums added up row by row, in their order, and
// float32 sums brought to the dtype of what they are the gradients of.
#include <cuda_runtime.h>

#include <algorithm>

#include "check.cuh"
#include "launch.h"
#include "math.cuh"

namespace swin_umamba {
namespace {

constexpr int kThreads = 256, kEach = 4;  // values of a thread

__host__ __device__ int64_t blocks_of(const Total& t) {
  return (t.count + kThreads * kEach - 1) / (kThreads * kEach);
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

__global__ void __launch_bounds__(kThreads) totals_kernel(const __grid_constant__ Totals all) {
  int64_t block = blockIdx.x;
  int which = 0;
  while (block >= blocks_of(all.parts[which])) block -= blocks_of(all.parts[which++]);
  const Total& t = all.parts[which];
  const int64_t i = (block * kThreads + threadIdx.x) * kEach;
  if (t.vectors && i < t.count) {
    float4 sum = row_of(t.from + i);
#pragma unroll 4
    for (int row = 1; row < t.rows; ++row) {
      const float4 v = row_of(t.from + row * t.count + i);
      sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    store(t.to, i, t.dtype,
          make_float4(t.scale * sum.x, t.scale * sum.y, t.scale * sum.z, t.scale * sum.w));
    return;
  }
  for (int64_t j = i; j < min(i + kEach, t.count); ++j) {
    float sum = t.from[j];
    for (int row = 1; row < t.rows; ++row) sum += t.from[row * t.count + j];
    store_from_float(t.to, j, t.dtype, t.scale * sum);
  }
}

}  // namespace

void launch_totals(Totals all, std::uintptr_t stream) {
  int64_t grid = 0;
  for (int i = 0; i < all.count; ++i) {
    Total& t = all.parts[i];
    const auto addresses = reinterpret_cast<std::uintptr_t>(t.from) | reinterpret_cast<std::uintptr_t>(t.to);
    t.vectors = addresses % 16 == 0 && t.count % kEach == 0;
    grid += blocks_of(t);
  }
  if (grid == 0) return;
  totals_kernel<<<static_cast<unsigned>(grid), kThreads, 0, reinterpret_cast<cudaStream_t>(stream)>>>(all);
  check(cudaGetLastError(), "launching the sums' kernel");
}

}  // namespace swin_umamba
