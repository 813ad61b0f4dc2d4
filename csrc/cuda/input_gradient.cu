// The gradient of the scan's input in 16 bits: what the scan's kernels summed in float32 plus the projection's
// share, dproj @ weight, in one pass that rounds once; and dproj in 16 bits, for the gradient of weight.
#include <cuda_runtime.h>

#include <algorithm>

#include "check.cuh"
#include "launch.h"
#include "math.cuh"
#include "matrix.cuh"

namespace swin_umamba {
namespace {

constexpr int kWarps = 8, kChannels = 64;  // of a block, the latter at a time

// Columns of a chunk's weights in shared memory: tile e of eight columns has of every four channels the e-th pair,
// so that a lane's values of two tiles are adjacent channels.
__device__ constexpr int column_of(int channel) {
  return channel / 16 * 16 + channel / 2 % 2 * 8 + channel % 16 / 4 * 2 + channel % 2;
}

// Warps have MT times 16 positions, and of their rows of dproj BLOCKS blocks of 8 values in registers.
template <class T, int BLOCKS, int MT>
__global__ void __launch_bounds__(32 * kWarps) input_gradient(const InputGradient p) {
  using T2 = typename Pair<T>::type;
  __shared__ __align__(16) T weights[8 * BLOCKS][kChannels + 8];
  const int lane = threadIdx.x % 32, i = lane / 4, j = lane % 4;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32) * 16 * MT + i;
  const auto row_of = [&](int m, int h) { return first + 16 * m + 8 * h; };
  uint32_t rows[MT][BLOCKS][2];
#pragma unroll
  for (int m = 0; m < MT; ++m) {
#pragma unroll
    for (int b = 0; b < BLOCKS; ++b) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const bool exists = row_of(m, h) < p.positions && 8 * b < p.width;
        const int64_t at = row_of(m, h) * p.width + 8 * b + 2 * j;
        T2 pair;
        from_float2(exists ? *reinterpret_cast<const float2*>(p.dproj_sum + at) : make_float2(0.0f, 0.0f), pair);
        if (exists && blockIdx.y == 0) *reinterpret_cast<T2*>(static_cast<T*>(p.dproj) + at) = pair;
        memcpy(&rows[m][b][h], &pair, 4);
      }
    }
  }
  for (int from = blockIdx.y * kChannels; from < p.D; from += gridDim.y * kChannels) {
    __syncthreads();  // the last chunk's weights have been read
    for (int k = threadIdx.x; k < p.width * (kChannels / 2); k += 32 * kWarps) {
      const int row = k / (kChannels / 2), channel = k % (kChannels / 2) * 2;
      const T* weight = static_cast<const T*>(p.weight) + static_cast<int64_t>(row) * p.D + from + channel;
      *reinterpret_cast<uint32_t*>(&weights[row][column_of(channel)]) =
          from + channel < p.D ? __ldg(reinterpret_cast<const uint32_t*>(weight)) : 0;
    }
    float sums[MT][kChannels / 8][4];
#pragma unroll
    for (int m = 0; m < MT; ++m) {
#pragma unroll
      for (int t = 0; t < kChannels / 16; ++t) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int channel = from + 16 * t + 4 * j;
          float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
          if (row_of(m, h) < p.positions && channel < p.D) {
            v = __ldcs(reinterpret_cast<const float4*>(p.dx_sum + row_of(m, h) * p.D + channel));
          }
          sums[m][2 * t][2 * h] = v.x, sums[m][2 * t][2 * h + 1] = v.y;
          sums[m][2 * t + 1][2 * h] = v.z, sums[m][2 * t + 1][2 * h + 1] = v.w;
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (int b = 0; b < BLOCKS; ++b) {
      if (8 * b >= p.width) break;
#pragma unroll
      for (int half = 0; half < kChannels / 32; ++half) {
        uint32_t factors[4];
        load_blocks<true>(factors, &weights[8 * b + lane % 8][32 * half + lane / 8 * 8]);
#pragma unroll
        for (int t = 0; t < 4; ++t) {
#pragma unroll
          for (int m = 0; m < MT; ++m) multiply_add<T>(sums[m][4 * half + t], rows[m][b], {factors[t]});
        }
      }
    }
#pragma unroll
    for (int m = 0; m < MT; ++m) {
#pragma unroll
      for (int t = 0; t < kChannels / 16; ++t) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int channel = from + 16 * t + 4 * j;
          if (row_of(m, h) >= p.positions || channel >= p.D) continue;
          T2 pairs[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            from_float2(make_float2(sums[m][2 * t + e][2 * h], sums[m][2 * t + e][2 * h + 1]), pairs[e]);
          }
          uint2 both;
          memcpy(&both, pairs, sizeof(both));
          *reinterpret_cast<uint2*>(static_cast<T*>(p.dx) + row_of(m, h) * p.D + channel) = both;
        }
      }
    }
  }
}

template <class T, int BLOCKS, int MT>
void launch_blocks(const InputGradient& p, cudaStream_t stream) {
  constexpr int kMinBlocks = 264;  // two for each multiprocessor of the largest GPU of today
  const int64_t positions = 16 * MT * kWarps, grid = (p.positions + positions - 1) / positions;
  const int chunks = (p.D + kChannels - 1) / kChannels;
  const auto shares = static_cast<unsigned>(std::min<int64_t>(chunks, (kMinBlocks + grid - 1) / grid));
  input_gradient<T, BLOCKS, MT><<<dim3(static_cast<unsigned>(grid), shares), 32 * kWarps, 0, stream>>>(p);
}

template <class T>
void launch_type(const InputGradient& p, cudaStream_t stream) {
  if (p.width <= 32) return launch_blocks<T, 4, 2>(p, stream);
  if (p.width <= 56) return launch_blocks<T, 7, 2>(p, stream);
  if (p.width <= 104) return launch_blocks<T, 13, 1>(p, stream);
  launch_blocks<T, 25, 1>(p, stream);
}

}  // namespace

void launch_input_gradient(const InputGradient& p, std::uintptr_t stream) {
  if (p.positions == 0) return;
  const auto queue = reinterpret_cast<cudaStream_t>(stream);
  if (p.dtype == kFloat16) {
    launch_type<__half>(p, queue);
  } else {
    launch_type<__nv_bfloat16>(p, queue);
  }
  check(cudaGetLastError(), "launching the input's gradient");
}

}  // namespace swin_umamba
