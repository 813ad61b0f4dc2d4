// Arithmetic of the one-state kernels: on both channels of a lane at a time, and on maps of a
// state.
#pragma once

#include <type_traits>

#include "math.cuh"
#include "matrix.cuh"

namespace swin_umamba {

__device__ inline float2 operator*(float2 a, float2 b) { return make_float2(a.x * b.x, a.y * b.y); }
__device__ inline float2 operator*(float a, float2 b) { return make_float2(a * b.x, a * b.y); }
__device__ inline float2 fma2(float2 a, float2 b, float2 c) {
  return make_float2(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y));
}
__device__ inline float2 fma2(float a, float2 b, float2 c) {
  return make_float2(fmaf(a, b.x, c.x), fmaf(a, b.y, c.y));
}
__device__ inline float2 exp2_fast(float2 v) { return make_float2(exp2_fast(v.x), exp2_fast(v.y)); }

template <class V>
__device__ inline V from_lane(V value, int lane) {
  return __shfl_sync(~0u, value, lane);
}
__device__ inline float2 from_lane(float2 value, int lane) {
  return make_float2(from_lane(value.x, lane), from_lane(value.y, lane));
}

// softplus of x, given x * log2(e), for values derived from 16-bit numbers: its polynomial is
// accurate to 5.7e-5, whereas the rounding of x's own factors is 4.9e-4.
__device__ inline float softplus_16bit(float x, float scaled) {
  const float e = exp2_fast(-fabsf(scaled));
  float s = 4.13473062e-2f;
  s = fmaf(s, e, -1.57427234e-1f);
  s = fmaf(s, e, 3.06300964e-1f);
  s = fmaf(s, e, -4.96977816e-1f);
  s = fmaf(s, e, 9.99943303e-1f);
  return fmaf(e, s, fmaxf(x, 0.0f));
}

// The logistic function of x, given x * log2(e).
__device__ inline float logistic_of_scaled(float scaled) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.0f + exp2_fast(-scaled)));
  return y;
}

// h -> P * h + S, of a lane's two channels.
struct Affine {
  float2 P, S;
  __device__ float2 operator()(float2 h) const { return fma2(P, h, S); }
};

// The maps of the four lanes of a channel composed in their order (kReverse: the last lane's first).
// `all` becomes all four; the result is those before this lane's.
template <bool kReverse>
__device__ inline Affine compose_lanes(Affine& all, int lane) {
  const int turn = kReverse ? 3 - lane % 4 : lane % 4;
#pragma unroll
  for (int distance = 1; distance < 4; distance *= 2) {
    const int from = kReverse ? lane + distance : lane - distance;
    const Affine other{from_lane(all.P, from), from_lane(all.S, from)};
    if (turn >= distance) {
      all.S = all(other.S);
      all.P = all.P * other.P;
    }
  }
  const int previous = kReverse ? lane + 1 : lane - 1, last = kReverse ? lane & ~3 : lane | 3;
  Affine before{from_lane(all.P, previous), from_lane(all.S, previous)};
  if (turn == 0) before = {make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f)};
  all = {from_lane(all.P, last), from_lane(all.S, last)};
  return before;
}

// The same applied to the state entering the first of the four lanes: what enters this lane. Half
// the shuffles of compose_lanes(), with the same latency.
template <bool kReverse>
__device__ inline float2 chain_lanes(const Affine& map, float2 entering, int lane) {
  const bool is_first = lane % 4 == (kReverse ? 3 : 0);
  const int previous = kReverse ? lane + 1 : lane - 1;
  float2 own = entering;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const float2 handed = from_lane(map(own), previous);
    if (!is_first) own = handed;
  }
  return own;
}

// d (16x8, float32) = a (16x8) @ b (8x8) + rows c.x of the first eight, c.y of the others: see multiply_add().
template <class T>
__device__ inline void multiply(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], float2 c) {
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%8,%8};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]), "f"(c.x), "f"(c.y));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%8,%8};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]), "f"(c.x), "f"(c.y));
  }
#endif
}

}  // namespace swin_umamba
