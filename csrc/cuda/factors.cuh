// Factors of the products with dt's low-rank projection, as matrix instructions take them: a (16x8) from rows
// of shared memory, b (8x8) from there or from dt_weight. Lane 4i+j holds rows i and i+8 of a and column i of b.
#pragma once

#include "math.cuh"
#include "matrix.cuh"

namespace swin_umamba {

// For 16-bit values.
template <class T>
struct Factors {
  static constexpr bool k16Bit = true;
  struct A { uint32_t pairs[2]; };
  struct B { uint32_t pairs[1]; };

  // a: 16 rows from `from` on, of which `columns` columns exist.
  static __device__ A rows(const T* from, int stride, int lane, int columns) {
    A a;
    load_blocks<false>(a.pairs, from + lane % 16 * stride);
    if (2 * (lane % 4) >= columns) a.pairs[0] = a.pairs[1] = 0;
    return a;
  }
  // a: 16 columns of 8 rows, transposed; or 8 columns, then zeros.
  template <bool kWhole>
  static __device__ A turned(const T* from, int stride, int lane) {
    const T* row = from + lane % 8 * stride;
    if constexpr (kWhole) {
      A a;
      load_blocks<true>(a.pairs, row + lane / 8 % 2 * 8);
      return a;
    } else {
      B first;
      load_blocks<true>(first.pairs, row);
      return {{first.pairs[0], 0}};
    }
  }
  // b: 8 rows from `from` on, of which `columns` columns exist.
  static __device__ B columns(const T* from, int stride, int lane, int columns) {
    B b;
    load_blocks<true>(b.pairs, from + lane % 8 * stride);
    if (lane / 4 >= columns) b.pairs[0] = 0;
    return b;
  }
  static __device__ void multiply_add(float (&c)[4], const A& a, const B& b) {
    swin_umamba::multiply_add<T>(c, a.pairs, b.pairs);
  }
};

// For float32, by TF32 instructions: each factor is split into a part with 10 bits of mantissa and a remainder,
// of which the instruction reads 10 bits. Without the product of the remainders, the error is float32's rounding.
template <>
struct Factors<float> {
  static constexpr bool k16Bit = false;
  struct A { float high[4], low[4]; };
  struct B { float high[2], low[2]; };

  static __device__ void split(float value, float& high, float& low) {
    high = __uint_as_float((__float_as_uint(value) + 0x1000) & 0xffffe000);
    low = value - high;
  }
  static __device__ A a(float v0, float v1, float v2, float v3) {
    A a;
    split(v0, a.high[0], a.low[0]);
    split(v1, a.high[1], a.low[1]);
    split(v2, a.high[2], a.low[2]);
    split(v3, a.high[3], a.low[3]);
    return a;
  }
  // Of rows j and j+4.
  static __device__ B b(float v0, float v1) {
    B b;
    split(v0, b.high[0], b.low[0]);
    split(v1, b.high[1], b.low[1]);
    return b;
  }
  static __device__ A rows(const float* from, int stride, int lane, int columns) {
    const int j = lane % 4;
    const float* at = from + lane / 4 * stride + j;
    const bool first = j < columns, second = j + 4 < columns;
    return a(first ? at[0] : 0.0f, first ? at[8 * stride] : 0.0f, second ? at[4] : 0.0f,
             second ? at[8 * stride + 4] : 0.0f);
  }
  template <bool kWhole>
  static __device__ A turned(const float* from, int stride, int lane) {
    const float* at = from + lane % 4 * stride + lane / 4;
    return a(at[0], kWhole ? at[8] : 0.0f, at[4 * stride], kWhole ? at[4 * stride + 8] : 0.0f);
  }
  static __device__ B columns(const float* from, int stride, int lane, int columns) {
    const float* at = from + lane % 4 * stride + lane / 4;
    const bool exists = lane / 4 < columns;
    return b(exists ? at[0] : 0.0f, exists ? at[4 * stride] : 0.0f);
  }
  static __device__ void multiply_add(float (&c)[4], const A& a, const B& b) {
    swin_umamba::multiply_add(c, a.low, b.high);
    swin_umamba::multiply_add(c, a.high, b.low);
    swin_umamba::multiply_add(c, a.high, b.high);
  }
};

}  // namespace swin_umamba
