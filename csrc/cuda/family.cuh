// The kernels of the families that stage tiles in shared memory.
#pragma once

#include "backward.cuh"
#include "families.h"
#include "forward.cuh"
#include "image_gradients.cuh"
#include "sequence_gradients.cuh"
#include "strided.cuh"
#include "value.cuh"

namespace swin_umamba {

template <class Tag, Walk kWalk>
struct LoaderOf;
template <int N, Walk kWalk>
struct LoaderOf<Strided<N>, kWalk> { using type = StridedLoader<Mapping<N>, kWalk>; };
template <int N, class T, bool kPieces, Walk kWalk>
struct LoaderOf<Image<N, T, kPieces>, kWalk> {
  using type = ImageLoader<Mapping<N>, typename Value<T>::type, kPieces, kWalk>;
};
template <int N, class T, Walk kWalk>
struct LoaderOf<Sequence<N, T>, kWalk> {
  using type = SequenceLoader<Mapping<N>, typename Value<T>::type, kWalk>;
};

template <class Tag, class F>
void with_kernel(Tag, const typename Tag::Params& p, Pass pass, F f) {
  using Forward = typename LoaderOf<Tag, Walk::kForward>::type;
  using Carry = typename LoaderOf<Tag, Walk::kCarry>::type;
  using Backward = typename LoaderOf<Tag, Walk::kBackward>::type;
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

template <class Tag>
int channel_blocks(Tag, const ScanParams& p) {
  return channel_blocks<typename LoaderOf<Tag, Walk::kForward>::type::M>(p);
}

}  // namespace swin_umamba

#include "launching.cuh"
