// Where the backward pass keeps, for one warp and tile, first the states before each group of kRecompute
// steps and then, in the same memory, the sums of the group's steps.
#pragma once

#include "mapping.cuh"

namespace swin_umamba {

template <class M>
struct GradientTile {
  static constexpr int kSlots = kTile / kRecompute;
  static constexpr int kChannelSums = 2 * M::WC, kStateSums = 2 * M::N;
  static constexpr int kSaved = M::WC * M::N;                           // floats of states
  static constexpr int kSums = kRecompute * (kChannelSums + kStateSums);  // floats of sums
  static constexpr int kSlot = kSaved > kSums ? kSaved : kSums;         // floats of a group
  static constexpr int kFloats = kSlots * kSlot;                     // floats of a warp

  float* base;

  __device__ float* slot(int group) const { return base + group * kSlot; }
  // Of a step, by channel: the sums over states of A q / ln 2 and of g Bs.
  static __device__ float* channels(float* slot, int i) { return slot + i * kChannelSums; }
  __device__ const float* channels(int step) const {
    return channels(slot(step / kRecompute), step % kRecompute);
  }
  // Of a step: the sums over the warp's channels, N of dBs and then N of dCs.
  static __device__ float* state_sums(float* slot, int i) {
    return slot + kRecompute * kChannelSums + i * kStateSums;
  }
  __device__ const float* state_sums(int step) const {
    return state_sums(slot(step / kRecompute), step % kRecompute);
  }
};

}  // namespace swin_umamba
