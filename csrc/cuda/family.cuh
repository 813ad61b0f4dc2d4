// The kernels of the families that stage tiles in shared memory.
#pragma once

#include "backward.cuh"
#include "forward.cuh"
#include "given.cuh"
#include "image.cuh"
#include "launch.h"
#include "sequence.cuh"
#include "value.cuh"

namespace swin_umamba {

template <class Family, Walk kWalk>
struct SourceOf;
template <int N, Walk kWalk>
struct SourceOf<Given<N>, kWalk> { using type = GivenSource<Mapping<N>, kWalk>; };
template <int N, class T, bool kPieces, Walk kWalk>
struct SourceOf<Image<N, T, kPieces>, kWalk> {
  using type = ImageSource<Mapping<N>, typename Value<T>::type, kPieces, kWalk>;
};
template <int N, class T, Walk kWalk>
struct SourceOf<Sequence<N, T>, kWalk> {
  using type = SequenceSource<Mapping<N>, typename Value<T>::type, kWalk>;
};

template <class Family, class F>
void with_kernel(Family, const ScanParams& p, Pass pass, F f) {
  using Forward = typename SourceOf<Family, Walk::kForward>::type;
  using Carry = typename SourceOf<Family, Walk::kCarry>::type;
  using Backward = typename SourceOf<Family, Walk::kBackward>::type;
  using M = typename Forward::M;
  const int stages = M::kStages * Stage<M, false>::kFloats * 4;
  switch (pass) {
    case Pass::kForward:
      return f(forward_kernel<Forward, true>, 2 * M::kThreads, stages + Forward::shared_bytes(p));
    case Pass::kForwardSplits:
      return f(forward_kernel<Forward, false>, 2 * M::kThreads, stages + Forward::shared_bytes(p));
    case Pass::kBackward:
      return f(backward_kernel<Backward>, M::kThreads,
               Stage<M, true>::kFloats * 4 + M::kWarps * GradientTile<M>::kFloats * 4 + Backward::shared_bytes(p));
    case Pass::kBackwardSplits:
      return f(forward_kernel<Carry, false>, 2 * M::kThreads, stages + Carry::shared_bytes(p));
  }
}

template <class Family>
int channel_blocks(Family, const ScanParams& p) {
  return channel_blocks<typename SourceOf<Family, Walk::kForward>::type::M>(p);
}

}  // namespace swin_umamba

#include "launching.cuh"
