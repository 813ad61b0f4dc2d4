// Elementary functions, conversions and warp sums used by the scan kernels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "params.h"

namespace swin_umamba {

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// softplus(x) = max(x, 0) + log1p(e), e = exp(-|x|) in (0, 1]: no overflow where dt is large. For
// log1p(e) / e a minimax polynomial (relative error 3e-8): no cancellation where dt is small.
__device__ inline float softplus(float x) {
  const float e = exp2_fast(-fabsf(x) * kLog2e);
  float s = 5.23269064e-3f;
  s = fmaf(s, e, -2.95052287e-2f);
  s = fmaf(s, e, 7.82259239e-2f);
  s = fmaf(s, e, -1.36632460e-1f);
  s = fmaf(s, e, 1.91060074e-1f);
  s = fmaf(s, e, -2.48429826e-1f);
  s = fmaf(s, e, 3.33190969e-1f);
  s = fmaf(s, e, -4.99994931e-1f);
  s = fmaf(s, e, 9.99999970e-1f);
  return fmaf(e, s, fmaxf(x, 0.0f));
}

// d softplus / dx from its value y: 1 - exp(-y), by its series (1e-7) where that would cancel. Both
// are computed, since a branch costs more.
__device__ inline float softplus_grad(float y) {
  float s = fmaf(y, 8.33333333e-3f, -4.16666667e-2f);
  s = fmaf(y, s, 1.66666667e-1f);
  s = fmaf(y, s, -0.5f);
  s = fmaf(y * y, s, y);
  const float large = 1.0f - exp2_fast(-y * kLog2e);
  return y < 0.125f ? s : large;
}

// The same from x itself.
__device__ inline float logistic(float x) { return __fdividef(1.0f, 1.0f + exp2_fast(-x * kLog2e)); }

// softplus for values computed from 16-bit ones: two instructions fewer, to 1.4e-6.
__device__ inline float softplus_coarse(float x) {
  const float e = exp2_fast(-fabsf(x) * kLog2e);
  float s = 1.4141025e-2f;
  s = fmaf(s, e, -6.64018118e-2f);
  s = fmaf(s, e, 1.492239e-1f);
  s = fmaf(s, e, -2.35038625e-1f);
  s = fmaf(s, e, 3.31094498e-1f);
  s = fmaf(s, e, -4.99869658e-1f);
  s = fmaf(s, e, 9.99998732e-1f);
  return fmaf(e, s, fmaxf(x, 0.0f));
}

__device__ inline float2 to_float2(__half2 v) { return __half22float2(v); }
__device__ inline float2 to_float2(__nv_bfloat162 v) { return __bfloat1622float2(v); }
__device__ inline float2 to_float2(float2 v) { return v; }
__device__ inline float to_float(__half v) { return __half2float(v); }
__device__ inline float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline void from_float2(float2 v, float2& out) { out = v; }
__device__ inline void from_float2(float2 v, __half2& out) { out = __float22half2_rn(v); }
__device__ inline void from_float2(float2 v, __nv_bfloat162& out) { out = __float22bfloat162_rn(v); }

template <class T>
struct Pair;
template <>
struct Pair<float> { using type = float2; };
template <>
struct Pair<__half> { using type = __half2; };
template <>
struct Pair<__nv_bfloat16> { using type = __nv_bfloat162; };

// The type is a runtime value here: these serve the staging of strided.cuh only, where one
// uniform branch per value costs less than three times as many kernels to compile and ship.
__device__ inline float load_as_float(const void* base, int64_t i, int dtype) {
  if (dtype == kFloat32) return static_cast<const float*>(base)[i];
  if (dtype == kFloat16) return __half2float(static_cast<const __half*>(base)[i]);
  return __bfloat162float(static_cast<const __nv_bfloat16*>(base)[i]);
}

__device__ inline void store_from_float(void* base, int64_t i, int dtype, float v) {
  if (dtype == kFloat32) {
    static_cast<float*>(base)[i] = v;
  } else if (dtype == kFloat16) {
    static_cast<__half*>(base)[i] = __float2half_rn(v);
  } else {
    static_cast<__nv_bfloat16*>(base)[i] = __float2bfloat16_rn(v);
  }
}

// Atomic additions without a result; of vectors where the GPU has them (sm_90), aligned to their size.
__device__ inline void add_to(float* p, float v) { atomicAdd(p, v); }
__device__ inline void add_to(float* p, float2 v) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(p), "f"(v.x), "f"(v.y) : "memory");
#else
  atomicAdd(p, v.x);
  atomicAdd(p + 1, v.y);
#endif
}
__device__ inline void add_to(float* p, float4 v) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(v.x), "f"(v.y), "f"(v.z),
               "f"(v.w)
               : "memory");
#else
  atomicAdd(p, v.x);
  atomicAdd(p + 1, v.y);
  atomicAdd(p + 2, v.z);
  atomicAdd(p + 3, v.w);
#endif
}

// The same where `wanted`, without a branch.
__device__ inline void add_to(float* p, float2 v, bool wanted) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n\t.reg .pred q;\n\tsetp.ne.s32 q, %3, 0;\n\t@q red.global.add.v2.f32 [%0], {%1, %2};\n\t}" ::"l"(p),
      "f"(v.x), "f"(v.y), "r"(static_cast<int>(wanted))
      : "memory");
#else
  if (wanted) add_to(p, v);
#endif
}

// V values summed over LANES lanes, kStride apart. Every exchange halves the number of values that a lane
// holds, so V values cost V - 1 shuffles rather than V * log2(LANES): at the end a lane holds
// max(1, V / LANES) sums, those from first(lane) on. Where LANES > V several lanes hold the same.
template <int V, int LANES, int kStride>
struct LaneSum {
  static constexpr int kHeld = V > LANES ? V / LANES : 1;

  static __device__ void run(float* v, int lane) {
    if constexpr (LANES > 1) {
      if constexpr (V > 1) {
        const bool upper = lane & kStride;
#pragma unroll
        for (int i = 0; i < V / 2; ++i) {
          const float keep = upper ? v[i + V / 2] : v[i];
          const float send = upper ? v[i] : v[i + V / 2];
          v[i] = keep + __shfl_xor_sync(~0u, send, kStride);
        }
        LaneSum<V / 2, LANES / 2, kStride * 2>::run(v, lane);
      } else {
        v[0] += __shfl_xor_sync(~0u, v[0], kStride);
        LaneSum<1, LANES / 2, kStride * 2>::run(v, lane);
      }
    }
  }

  static __device__ int first(int lane) {
    if constexpr (LANES > 1 && V > 1) {
      return ((lane & kStride) ? V / 2 : 0) + LaneSum<V / 2, LANES / 2, kStride * 2>::first(lane);
    } else {
      return 0;
    }
  }

  // One lane of those that hold the same sums.
  static __device__ bool owner(int lane) {
    if constexpr (LANES > 1 && V > 1) {
      return LaneSum<V / 2, LANES / 2, kStride * 2>::owner(lane);
    } else {
      return (lane & ((LANES - 1) * kStride)) == 0;
    }
  }
};

template <int V>
__device__ inline void load_vector(const float* from, float (&v)[V]) {
  if constexpr (V % 4 == 0) {
#pragma unroll
    for (int i = 0; i < V / 4; ++i) {
      const float4 q = reinterpret_cast<const float4*>(from)[i];
      v[4 * i] = q.x, v[4 * i + 1] = q.y, v[4 * i + 2] = q.z, v[4 * i + 3] = q.w;
    }
  } else if constexpr (V == 2) {
    const float2 q = *reinterpret_cast<const float2*>(from);
    v[0] = q.x, v[1] = q.y;
  } else {
    v[0] = *from;
  }
}

template <int V>
__device__ inline void store_vector(float* to, const float (&v)[V]) {
  if constexpr (V % 4 == 0) {
#pragma unroll
    for (int i = 0; i < V / 4; ++i) {
      reinterpret_cast<float4*>(to)[i] =
          make_float4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
    }
  } else if constexpr (V == 2) {
    *reinterpret_cast<float2*>(to) = make_float2(v[0], v[1]);
  } else {
    *to = v[0];
  }
}

}  // namespace swin_umamba
