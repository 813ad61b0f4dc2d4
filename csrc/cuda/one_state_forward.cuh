// The forward pass of images with one state per channel, and the pass before it over splits.
#pragma once

#include "one_state.cuh"

namespace swin_umamba {

// kOutputs: else only what the steps of a split do to a state, for all splits but the last.
template <class T, int RB, bool kOutputs>
__global__ void __launch_bounds__(32 * kOneStateMaxWarps) one_state_forward(const OneStateParams p) {
  extern __shared__ float4 shared[];
  using Thread = OneStateThread<T, RB, Walk::kForward>;
  using T2 = typename Thread::T2;
  const Thread t(p, kOutputs ? p.splits : p.splits - 1, 0, shared);
  const float2 A = t.decay(), bias = t.parameter(p.bias), D = t.skip();
  typename Thread::Weights weights[Thread::kHeld];
  t.hold(weights);
  Affine carry{make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f)};
  if constexpr (kOutputs) {
    for (int split = 0; split < t.split; ++split) carry.S = t.split_map(split)(carry.S);
  }
  t.clear();
  t.sync_cluster();
  const int tiles = t.abreast();
#pragma unroll
  for (int i = 0; i < Thread::kStages - 1; ++i) {
    t.load(t.first_tile + i * tiles + t.own_tile(), i);
    commit_copies();
  }
  int turn = 0;
  for (int first = t.first_tile; first < t.last_tile; first += tiles, ++turn) {
    const int tile = first + t.own_tile(), count = t.steps(tile);
    wait_for_copies<Thread::kStages - 2>();
    t.sync_tile();
    t.load(tile + (Thread::kStages - 1) * tiles, turn + Thread::kStages - 1);
    commit_copies();

    float2 a[kOneStateSteps], added[kOneStateSteps];
    T2 x[kOneStateSteps];
    typename Thread::Tile::Maps maps[kOneStateSteps];
    Affine map{make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f)};
    const auto v = t.tile(turn);
    t.delta(v, weights, bias, a);
#pragma unroll
    for (int i = 0; i < kOneStateSteps; ++i) {
      x[i] = v.x(i);
      maps[i] = v.packed_maps(i);
      const float2 dt = Thread::steps_of(a[i], kLog2e * a[i]);
      a[i] = exp2_fast(dt * A);
      added[i] = to_float2(maps[i]).x * (dt * to_float2(x[i]));
      map.P = map.P * a[i];
      map.S = fma2(a[i], map.S, added[i]);
    }
    if constexpr (!kOutputs) {
      if (count <= 0) map = {make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f)};
      compose_lanes<false>(map, t.lane);
      t.template compose_tiles<false>(map, carry, turn);
    } else {
      float2 at_tile;
      float2 h = t.template hand_over<false>(map, carry.S, at_tile, turn);
      if (p.states && t.lane % 4 == 0 && t.valid && count > 0) {
        *reinterpret_cast<float2*>(t.state(tile)) = at_tile;
      }
      const int steps = t.own_steps(count);
      const auto write = [&](auto whole, auto skip) {
#pragma unroll
        for (int i = 0; i < kOneStateSteps; i += 2) {
          const int2 at = v.places(i / 2);
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            h = fma2(a[i + e], h, added[i + e]);
            float2 y = to_float2(maps[i + e]).y * h;
            if constexpr (skip.value) y = fma2(D, to_float2(x[i + e]), y);
            add_to(Thread::row_at(t.image_to, e ? at.y : at.x, p.D * sizeof(float)), y, whole.value || i + e < steps);
          }
        }
      };
      if (!t.is_whole(count)) {
        write(std::false_type{}, std::true_type{});
      } else if (t.adds_skip()) {
        write(std::true_type{}, std::true_type{});
      } else {
        write(std::true_type{}, std::false_type{});
      }
    }
  }
  if constexpr (kOutputs) {
    t.sync_cluster();  // nothing could be handed to a block that has ended
  } else {
    t.save_split_map(carry);
  }
}

}  // namespace swin_umamba
