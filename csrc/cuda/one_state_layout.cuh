// Tiles of the one-state kernels in shared memory: see one_state.cuh for slots.
#pragma once

#include <type_traits>

#include "factors.cuh"
#include "mapping.cuh"
#include "one_state_sizes.h"
#include "params.h"

namespace swin_umamba {

// Of a lane's i-th step, from its first slot on.
__device__ constexpr int slot_of(int i) { return i / 2 * 8 + i % 2; }

// A block's shared memory: for each of the tiles side by side, kStages of those in flight. Lengths and
// places are constants in pieces of 16 bytes: those of a row are odd in number, so that the next row lies
// in other banks.
template <class T, int RB, Walk kWalk>
struct OneStateLayout {
  static constexpr bool kGiven = RB == 0, kX = kWalk != Walk::kCarry, kDy = kWalk != Walk::kForward;
  static constexpr int kStages = kWalk == Walk::kForward ? 4 : 2;
  static constexpr int kPlaces = 4;  // of tiles: positions outlive their tile, for what is written after it
  // Of 16 channels, and of a row.
  static constexpr int kPieces = kOneStateChannels * sizeof(T) / 16, kFloats = kOneStateChannels / 4;
  static constexpr int kXRow = kOneStateMaxChannelWarps * kPieces + 1;
  static constexpr int kFloatRow = kOneStateMaxChannelWarps * kFloats + 1;
  static constexpr int kProjRow = (RB * static_cast<int>(sizeof(T)) / 2 + 1) | 1;
  static constexpr int kDelta = kX ? kTile * kXRow : 0, kGradient = kDelta + (kGiven ? kTile * kFloatRow : 0);
  static constexpr int kProj = kGradient + (kDy ? kTile * kFloatRow : 0);
  static constexpr int kStage = kProj + (kGiven ? kTile / 2 : kTile * kProjRow);  // given: pairs of floats
  static constexpr int kPlace = kStages * kStage, kSums = kPlace + kPlaces * kTile / 4;
  // Gradients by slot that one warp of channels computed: floats of a row by ranks, and pairs of Bs and Cs.
  static constexpr int kRankRow = 8 * (RB | 1);
  static constexpr int kSum = kGiven || kWalk != Walk::kBackward ? 0 : kTile * (kRankRow + 2) / 4;

  static __host__ __device__ int tile_bytes(const OneStateParams& p) { return 16 * (kSums + p.one_state * kSum); }
  // Maps handed from tile to tile.
  static __host__ __device__ int tile_maps_bytes(const OneStateParams& p) {
    return 2 * p.one_state_tiles * p.one_state * 8 * 16;
  }
};

// A tile in shared memory as a lane sees it.
template <class T, int RB, Walk kWalk>
struct OneStateTile {
  using T2 = typename Pair<T>::type;
  using F = Factors<T>;
  using Layout = OneStateLayout<T, RB, kWalk>;
  static constexpr bool kGiven = Layout::kGiven;

  const T2* x_at;
  const float2 *dy_at, *delta_at;
  const char* maps_at;
  const char *ranks_at, *turned_ranks_at;
  const int2* places_at;

  __device__ T2 x(int i) const { return x_at[slot_of(i) * Layout::kXRow * 16 / sizeof(T2)]; }
  __device__ float2 dy(int i) const { return dy_at[slot_of(i) * Layout::kFloatRow * 2]; }
  __device__ float2 delta(int i) const { return delta_at[slot_of(i) * Layout::kFloatRow * 2]; }
  // Bs and Cs.
  using Maps = std::conditional_t<kGiven, float2, T2>;
  __device__ Maps packed_maps(int i) const {
    return *reinterpret_cast<const Maps*>(maps_at + slot_of(i) * (kGiven ? sizeof(Maps) : Layout::kProjRow * 16));
  }
  __device__ float2 maps(int i) const { return to_float2(packed_maps(i)); }
  // The r-th block of ranks as factors, one of each eight slots: rows are ranks and columns slots, transposed
  // the other way round.
  template <bool kTransposed>
  __device__ void ranks(int r, typename F::B (&factors)[4]) const {
    uint32_t blocks[4];
    if constexpr (F::k16Bit) load_blocks<kTransposed>(blocks, ranks_at + 16 * r);
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      if constexpr (F::k16Bit) {
        factors[m] = {blocks[m]};
      } else {
        factors[m] = rank<kTransposed>(r, m);
      }
    }
  }
  // One of them, of float32.
  template <bool kTransposed>
  __device__ typename F::B rank(int r, int m) const {
    constexpr int kRow = 4 * Layout::kProjRow;
    const float* from = reinterpret_cast<const float*>(kTransposed ? turned_ranks_at : ranks_at) + 8 * (m * kRow + r);
    return F::b(from[0], from[kTransposed ? kRow : 4]);
  }
  // Of steps 2i and 2i+1.
  __device__ int2 places(int i) const { return places_at[4 * i]; }
};

}  // namespace swin_umamba
