// y of some steps, without D x: sums over states of Cs h, by channel.
#pragma once

#include <type_traits>

#include "mapping.cuh"
#include "math.cuh"
#include "matrix.cuh"

namespace swin_umamba {

// In float32, by shuffles. Lanes that share a channel are adjacent.
template <class M>
struct ShuffledOutputSums {
  static constexpr int kTogether = 4;  // steps whose sums are computed, and stored, together
  using Sum = LaneSum<kTogether * M::P, M::LS, 1>;

  float y[kTogether * M::P];

  __device__ void add(int step, const float (&h)[M::P][M::S], const float (&Cs)[M::S], int) {
#pragma unroll
    for (int c = 0; c < M::P; ++c) {
      float sum = Cs[0] * h[c][0];
#pragma unroll
      for (int s = 1; s < M::S; ++s) sum = fmaf(Cs[s], h[c][s], sum);
      y[step * M::P + c] = sum;
    }
  }

  __device__ void reduce(int lane) { Sum::run(y, lane); }

  // `to` is where the first step's y of the lane's first channel goes, the next step's `row` further on.
  __device__ void store(float* to, int row, int lane) const {
    if (!Sum::owner(lane)) return;
    // A lane's sums are of one step or of several whole ones.
    constexpr int kVector = Sum::kHeld < M::P ? Sum::kHeld : M::P;
    const int at = Sum::first(lane);
    to += at / M::P * row + at % M::P;
#pragma unroll
    for (int i = 0; i < Sum::kHeld; i += kVector) {
      float part[kVector];
#pragma unroll
      for (int j = 0; j < kVector; ++j) part[j] = y[i + j];
      store_vector(to + i / M::P * row, part);
    }
  }
};

// For 16-bit inputs, by TF32 matrix instructions, straight from the registers: a lane's channels are rows
// of a, its states lie along k. All columns of b are Cs, so that all lanes of a channel hold its y.
template <class M>
struct MatrixOutputSums {
  static_assert(kLanesAreFragments<M>);
  static constexpr int kTogether = M::LS;  // a lane of a channel stores one of them

  float y[M::P];

  __device__ void add(int step, const float (&h)[M::P][M::S], const float (&Cs)[M::S], int lane) {
    float sums[4] = {};
#pragma unroll
    for (int s = 0; s < M::S; s += 2) {
      multiply_add(sums, {h[0][s], h[1][s], h[0][s + 1], h[1][s + 1]}, {Cs[s], Cs[s + 1]});
    }
#pragma unroll
    for (int c = 0; c < M::P; ++c) y[c] = step == 0 || lane % M::LS == step ? sums[2 * c] : y[c];
  }

  __device__ void reduce(int) {}

  __device__ void store(float* to, int row, int lane) const {
    float scaled[M::P];  // makes up for the truncation of h; Cs, of 16 bits, is exact
#pragma unroll
    for (int c = 0; c < M::P; ++c) scaled[c] = (1.0f + kTruncationLoss) * y[c];
    store_vector(to + lane % M::LS * row, scaled);
  }
};

template <class M, bool k16Bit>
using OutputSumsFor =
    std::conditional_t<k16Bit && kLanesAreFragments<M>, MatrixOutputSums<M>, ShuffledOutputSums<M>>;

}  // namespace swin_umamba
