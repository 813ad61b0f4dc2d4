// The kernels of images with one state per channel.
#pragma once

#include "families.h"
#include "one_state_backward.cuh"
#include "one_state_forward.cuh"
#include "value.cuh"

namespace swin_umamba {

template <class T, int RB, class F>
void with_kernel(OneState<T, RB>, const OneStateParams& p, Pass pass, F f) {
  using V = typename Value<T>::type;
  const auto launch = [&](auto kernel, auto layout) {
    using Layout = decltype(layout);
    const int bytes = Layout::tile_maps_bytes(p) + p.one_state_tiles * Layout::tile_bytes(p);
    f(kernel, 32 * p.one_state * p.one_state_tiles, bytes);
  };
  switch (pass) {
    case Pass::kForward: return launch(one_state_forward<V, RB, true>, OneStateLayout<V, RB, Walk::kForward>{});
    case Pass::kForwardSplits: return launch(one_state_forward<V, RB, false>, OneStateLayout<V, RB, Walk::kForward>{});
    case Pass::kBackward: return launch(one_state_backward<V, RB>, OneStateLayout<V, RB, Walk::kBackward>{});
    case Pass::kBackwardSplits: return launch(one_state_carry<V, RB>, OneStateLayout<V, RB, Walk::kCarry>{});
  }
}

template <class T, int RB>
int channel_blocks(OneState<T, RB>, const OneStateParams& p) {
  return ceil_div(p.D, kOneStateChannels * p.one_state);
}

}  // namespace swin_umamba

#include "launching.cuh"
