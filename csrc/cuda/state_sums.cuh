// What a step adds to the gradients of Bs and Cs: sums over a warp's channels of g dt x and of dy h.
#pragma once

#include <type_traits>

#include "gradient_tile.cuh"
#include "mapping.cuh"
#include "math.cuh"
#include "matrix.cuh"

namespace swin_umamba {

constexpr int kTogether = 2;  // steps whose sums are stored together

// In float32, by shuffles.
template <class M>
struct ShuffledStateSums {
  using Tile = GradientTile<M>;
  using Sum = LaneSum<2 * M::S, M::LC, 1>;
  // Factors of the stored sums of dBs and of dCs.
  static constexpr float kScaleB = 1.0f, kScaleC = 1.0f;

  int lane, at;  // at: where in a step's sums this lane stores its own
  float held[kTogether][Sum::kHeld];

  __device__ explicit ShuffledStateSums(const Lane<M>& t) : lane(t.lane) {
    const int first = Sum::first(lane);
    at = (first < M::S ? first : M::N + first - M::S) + t.state;
  }

  // `h` after the step; `pairs` is (dt, dt x) by channel.
  __device__ void add(int step, const float (&g)[M::P][M::S], const float (&h)[M::P][M::S],
                      const float (&pairs)[2 * M::P], const float (&dy)[M::P]) {
    float sums[2 * M::S];
#pragma unroll
    for (int s = 0; s < M::S; ++s) {
      sums[s] = g[0][s] * pairs[1];
      sums[M::S + s] = dy[0] * h[0][s];
#pragma unroll
      for (int c = 1; c < M::P; ++c) {
        sums[s] = fmaf(g[c][s], pairs[2 * c + 1], sums[s]);
        sums[M::S + s] = fmaf(dy[c], h[c][s], sums[M::S + s]);
      }
    }
    Sum::run(sums, lane);
#pragma unroll
    for (int v = 0; v < Sum::kHeld; ++v) held[step % kTogether][v] = sums[v];
  }

  // The sums of the steps from `first` on, which were the last to be added.
  __device__ void store(float* slot, int first) {
    if (!Sum::owner(lane)) return;
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
#pragma unroll
      for (int v = 0; v < Sum::kHeld; ++v) {
        // Where a lane holds dBs and dCs both, dCs lie N further on.
        const int skip = Sum::kHeld > M::S && v >= M::S ? M::N - M::S : 0;
        Tile::state_sums(slot, first + j)[at + skip + v] = held[j][v];
      }
    }
  }
};

// For 16-bit inputs, by TF32 matrix instructions, straight from the registers: with a lane's states as
// rows of a and its channels along k, no value has to move. A column of b is a pair of (step, dBs or
// dCs) and half of the warp's channels; the factors of all others are zero in it, so that four products
// share one accumulator.
template <class M>
struct MatrixStateSums {
  static_assert(kLanesAreFragments<M> && kTogether == 2, "a column for each");
  using Tile = GradientTile<M>;
  // g and dt x of dBs are truncated, and h of dCs; dy, of 16 bits, is exact.
  static constexpr float kScaleB = 1.0f + 2 * kTruncationLoss, kScaleC = 1.0f + kTruncationLoss;

  int column, upper, at;
  float sums[2][4] = {};

  __device__ explicit MatrixStateSums(const Lane<M>& t) {
    column = t.lane / M::LC;
    upper = t.lane / 4 % 2;
    const int own = t.lane % 4;  // (step, dBs or dCs) of the columns that this lane holds of the sums
    at = own / 2 * Tile::kStateSums + own % 2 * M::N + t.state + 2 * upper;
  }

  __device__ void add(int step, const float (&g)[M::P][M::S], const float (&h)[M::P][M::S],
                      const float (&pairs)[2 * M::P], const float (&dy)[M::P]) {
    const bool B = column == step % kTogether * 2, C = column == step % kTogether * 2 + 1;
    const float for_B[2] = {B ? pairs[1] : 0.0f, B ? pairs[3] : 0.0f};
    const float for_C[2] = {C ? dy[0] : 0.0f, C ? dy[1] : 0.0f};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      multiply_add(sums[j], {g[0][2 * j], g[0][2 * j + 1], g[1][2 * j], g[1][2 * j + 1]}, for_B);
      multiply_add(sums[j], {h[0][2 * j], h[0][2 * j + 1], h[1][2 * j], h[1][2 * j + 1]}, for_C);
    }
  }

  // Of the two columns that a lane holds one is over the channels of its row; the other half's sums
  // come from the lane with the same states there. Each of the two then has two states.
  __device__ void store(float* slot, int first) {
    float total[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float keep = upper ? sums[1][2 * e + 1] : sums[0][2 * e];
      const float send = upper ? sums[0][2 * e + 1] : sums[1][2 * e];
      total[e] = keep + __shfl_xor_sync(~0u, send, 4);
    }
    store_vector(Tile::state_sums(slot, first) + at, total);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int v = 0; v < 4; ++v) sums[j][v] = 0.0f;
    }
  }
};

template <class M, bool k16Bit>
using StateSumsFor =
    std::conditional_t<k16Bit && kLanesAreFragments<M>, MatrixStateSums<M>, ShuffledStateSums<M>>;

}  // namespace swin_umamba
