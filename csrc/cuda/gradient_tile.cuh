// Where the backward pass keeps, for one warp and tile, first the states at the start of each
// segment and then, in the same memory, what the segment's steps sum up to.
#pragma once

#include "mapping.cuh"

namespace swin_umamba {

template <class M>
struct GradientTile {
  static constexpr int kSegments = kTile / kSegment;
  static constexpr int kChannelSums = 2 * M::WC, kStateSums = 2 * M::N;
  static constexpr int kSaved = M::WC * M::N;                           // floats of states
  static constexpr int kSums = kSegment * (kChannelSums + kStateSums);  // floats of sums
  static constexpr int kSlot = kSaved > kSums ? kSaved : kSums;         // floats of a segment
  static constexpr int kFloats = kSegments * kSlot;                     // floats of a warp

  float* base;

  __device__ float* slot(int segment) const { return base + segment * kSlot; }
  // Of a step, by channel: the sums over states of A q / ln 2 and of g Bs.
  static __device__ float* channels(float* slot, int i) { return slot + i * kChannelSums; }
  __device__ const float* channels(int step) const {
    return channels(slot(step / kSegment), step % kSegment);
  }
  // Of a step: the sums over the warp's channels, N of dBs and then N of dCs.
  static __device__ float* state_sums(float* slot, int i) {
    return slot + kSegment * kChannelSums + i * kStateSums;
  }
  __device__ const float* state_sums(int step) const {
    return state_sums(slot(step / kSegment), step % kSegment);
  }
};

}  // namespace swin_umamba
