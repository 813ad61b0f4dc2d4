// The backward pass of images with one state per channel, and the pass before it over splits.
#pragma once

#include "one_state.cuh"

namespace swin_umamba {

// How the gradient of a state, times its decay, changes over the steps of a split, for all splits
// but the first.
template <class T, int RB>
__global__ void __launch_bounds__(32 * kOneStateMaxWarps) one_state_carry(const OneStateParams p) {
  extern __shared__ float4 shared[];
  using Thread = OneStateThread<T, RB, Walk::kCarry>;
  const Thread t(p, p.splits - 1, 1, shared);
  const float2 A = t.decay(), bias = t.parameter(p.bias);
  typename Thread::Weights weights[Thread::kHeld];
  t.hold(weights);
  Affine carry{make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f)};
  t.clear();
  __syncthreads();
  const int tiles = p.one_state_tiles;
  int turn = 0;
  t.load(t.last_group() + t.tile_warp, turn);
  commit_copies();
  for (int first = t.last_group(); first >= t.first_tile; first -= tiles, ++turn) {
    const int tile = first + t.tile_warp, count = t.steps(tile);
    wait_for_copies<0>();
    t.sync_tile();
    if (first > t.first_tile) t.load(tile - tiles, turn + 1);
    commit_copies();

    float2 dt[kOneStateSteps];
    Affine all{make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f)};
    const auto v = t.tile(turn);
    t.delta(v, weights, bias, dt);
#pragma unroll
    for (int i = kOneStateSteps - 1; i >= 0; --i) {
      const float2 a = exp2_fast(Thread::steps_of(dt[i], kLog2e * dt[i]) * A);
      all.P = all.P * a;
      all.S = a * fma2(v.maps(i).y, v.dy(i), all.S);
    }
    if (count <= 0) all = {make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f)};
    compose_lanes<true>(all, t.lane);
    t.template compose_tiles<true>(all, carry, turn);
  }
  t.save_split_map(carry);
}

// Sums over all steps for a thread's channels.
template <class T, int RB>
struct OneStateSums {
  using Thread = OneStateThread<T, RB, Walk::kBackward>;
  static constexpr int kCount = 3 + 8 * RB;
  float2 A{}, D{}, bias{};
  float weight[Thread::kRanks][4] = {};  // a product of matrix instructions

  // Adds the sums of all tiles side by side, in order, to the block's row. `shared`: kCount floats
  // for each of the block's channels.
  __device__ void write(const Thread& t, float2 of_A, float* shared) {
    const OneStateParams& p = t.p;
#pragma unroll
    for (int mask = 1; mask < 4; mask *= 2) {
      for (float2* v : {&A, &D, &bias}) {
        v->x += __shfl_xor_sync(~0u, v->x, mask);
        v->y += __shfl_xor_sync(~0u, v->y, mask);
      }
    }
    const int first = t.warp * kOneStateChannels + 2 * (t.lane / 4), j = t.lane % 4;
    for (int tile = 0; tile < p.one_state_tiles; ++tile) {
      __syncthreads();
      if (tile != t.tile_warp) continue;
      const auto add = [&](int channel, int i, float value) {
        float* to = shared + (first + channel) * kCount + i;
        *to = tile == 0 ? value : *to + value;
      };
      if (j == 0) {
        add(0, 0, A.x * of_A.x), add(1, 0, A.y * of_A.y);
        add(0, 1, D.x), add(1, 1, D.y);
        add(0, 2, bias.x), add(1, 2, bias.y);
      }
#pragma unroll
      for (int r = 0; r < RB; ++r) {
        add(0, 3 + 8 * r + 2 * j, weight[r][0]), add(0, 4 + 8 * r + 2 * j, weight[r][1]);
        add(1, 3 + 8 * r + 2 * j, weight[r][2]), add(1, 4 + 8 * r + 2 * j, weight[r][3]);
      }
    }
    __syncthreads();
    const int row = static_cast<uint32_t>(t.b * p.splits + t.split) % static_cast<uint32_t>(p.sum_rows);
    for (int i = threadIdx.x; i < p.one_state * kOneStateChannels * kCount; i += blockDim.x) {
      const int c = t.block_channel() + i / kCount, what = i % kCount;
      if (c >= p.D) continue;
      const int64_t at = (static_cast<int64_t>(row) * p.K + t.k) * p.D + c;
      const float value = kSumScale * shared[i];
      if (what == 0) {
        add_to(p.dA + at, value);
      } else if (what == 1) {  // the same of all directions
        for (int k = 0; t.adds_skip() && k < p.K; ++k) add_to(p.dDs + at + k * p.D, value);
      } else if (what == 2) {
        add_to(p.dbias + at, value);
      } else if (what - 3 < p.R) {
        add_to(p.ddt_weight + at * p.R + what - 3, value);
      }
    }
  }
};

// The gradient of proj: adds up the sums of the block's warps over their channels for a tile. Four
// lanes have 8 values of a slot.
template <class Thread>
__device__ inline void add_to_proj(const Thread& t, int turn, int count) {
  const OneStateParams& p = t.p;
  constexpr int kRow = Thread::Layout::kRankRow;
  const int pairs = t.width() / 2, blocks = (pairs + 3) / 4 * 4;
#pragma unroll 1
  for (int i = t.warp; i < blocks; i += p.one_state) {
    const int slot = i % 4 * 8 + t.lane / 4, pair = i / 4 * 4 + t.lane % 4;
    if (pair >= pairs || Thread::step_of(slot) >= count) continue;
    const bool is_map = 2 * pair == p.R;
    const float2* from = is_map ? t.map_sums(0) + slot : reinterpret_cast<const float2*>(t.rank_sums(0) + slot * kRow) + pair;
    float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int warp = 0; warp < kOneStateMaxChannelWarps; ++warp) {
      if (warp < p.one_state) {
        const float2 v = from[warp * (2 * Thread::Layout::kSum)];
        sum.x += v.x;
        sum.y += v.y;
      }
    }
    add_to(Thread::row_at(t.proj_to, t.places(turn)[slot], p.K * t.width() * sizeof(float)) + 2 * pair, sum);
  }
}

// What ddelta of a tile's steps adds to the gradients of dt_weight and, by slot, of ranks: 16 bits.
template <class Thread, class Sums>
__device__ inline void add_products_16bit(const Thread& t, const typename Thread::Tile& v,
                                          const typename Thread::Weights (&weights)[Thread::kHeld],
                                          const float2 (&ddelta)[kOneStateSteps], Sums& sums, float* rank_sums) {
  using F = typename Thread::F;
  using T2 = typename Thread::T2;
  // As factors: of the first and second channels by slots, and transposed.
  typename F::A own[4];
  uint32_t turned[2][4];
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    T2 pairs[2];
    from_float2(make_float2(ddelta[2 * m].x, ddelta[2 * m + 1].x), pairs[0]);
    from_float2(make_float2(ddelta[2 * m].y, ddelta[2 * m + 1].y), pairs[1]);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      memcpy(&own[m].pairs[c], &pairs[c], 4);
      turned[c][m] = transposed(own[m].pairs[c]);
    }
  }
#pragma unroll
  for (int r = 0; r < Thread::kRanks; ++r) {
    typename F::B columns[4];
    v.template ranks<true>(r, columns);
#pragma unroll
    for (int m = 0; m < 4; ++m) F::multiply_add(sums.weight[r], own[m], columns[m]);
    const typename F::B factors[2] = {{transposed(weights[r].pairs[0])}, {transposed(weights[r].pairs[1])}};
#pragma unroll
    for (int m = 0; m < 4; m += 2) {
      float products[4];  // steps of columns of m and m + 1, by ranks
      Thread::multiply(products, {turned[0][m], turned[0][m + 1]}, factors[0], make_float2(0.0f, 0.0f));
      F::multiply_add(products, {turned[1][m], turned[1][m + 1]}, factors[1]);
      Thread::store_products(rank_sums, r, m, products);
    }
  }
}

// The same for float32. Transposed, ddelta is read back from shared memory, where it replaces dy,
// which has been read.
template <class Thread, class Sums>
__device__ inline void add_products_float32(const Thread& t, const typename Thread::Tile& v,
                                            const float2 (&ddelta)[kOneStateSteps], Sums& sums, float* rank_sums) {
  using F = typename Thread::F;
  constexpr int kRow = Thread::Layout::kFloatRow * 4;
  float* own = const_cast<float*>(reinterpret_cast<const float*>(v.dy_at));
#pragma unroll
  for (int i = 0; i < kOneStateSteps; ++i) *reinterpret_cast<float2*>(own + Thread::slot(i) * kRow) = ddelta[i];
  __syncwarp();
  // Added up tile by tile: matrix instructions truncate the accumulator, which would show in a long
  // sum.
  float of_tile[Thread::kRanks][4] = {};
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    const auto factor = F::a(ddelta[2 * m].x, ddelta[2 * m].y, ddelta[2 * m + 1].x, ddelta[2 * m + 1].y);
#pragma unroll
    for (int r = 0; r < Thread::kRanks; ++r) F::multiply_add(of_tile[r], factor, v.template rank<true>(r, m));
  }
#pragma unroll
  for (int r = 0; r < Thread::kRanks; ++r) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums.weight[r][i] += of_tile[r][i];
  }
  const float* warps = own - t.slots * kRow - 2 * (t.lane / 4);
#pragma unroll
  for (int m = 0; m < 4; m += 2) {
    const typename F::A steps[2] = {F::rows(warps + 8 * m * kRow, kRow, t.lane, 8),
                                    F::rows(warps + 8 * m * kRow + 8, kRow, t.lane, 8)};
#pragma unroll
    for (int r = 0; r < Thread::kRanks; ++r) {
      float products[4] = {};
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int channel = t.warp * kOneStateChannels + 8 * c + t.lane % 4, rank = 8 * r + t.lane / 4;
        F::multiply_add(products, steps[c], F::b(t.weight(channel, rank), t.weight(channel + 4, rank)));
      }
      Thread::store_products(rank_sums, r, m, products);
    }
  }
}

template <class T, int RB>
__global__ void __launch_bounds__(32 * kOneStateMaxBackwardWarps) one_state_backward(const OneStateParams p) {
  extern __shared__ float4 shared[];
  using Thread = OneStateThread<T, RB, Walk::kBackward>;
  using T2 = typename Thread::T2;
  const Thread t(p, p.splits, 0, shared);
  const float2 A = t.decay(), bias = t.parameter(p.bias), D = t.skip();
  const float2 natural_A = kLn2 * A;  // without the factor log2(e)
  typename Thread::Weights weights[Thread::kHeld];
  t.hold(weights);
  OneStateSums<T, RB> sums;
  Affine carry{make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f)};
  for (int split = p.splits - 1; split > t.split; --split) carry.S = t.split_map(split)(carry.S);
  t.clear();
  t.sync_cluster();
  const int tiles = t.abreast();
  int turn = 0, last_count = 0;
  t.load(t.last_group() + t.own_tile(), turn);
  commit_copies();
  for (int first = t.last_group(); first >= t.first_tile; first -= tiles, ++turn) {
    const int tile = first + t.own_tile(), count = t.steps(tile);
    const float2 entering = *reinterpret_cast<const float2*>(t.state(tile));
    wait_for_copies<0>();
    t.sync_tile();
    if (first > t.first_tile) t.load(tile - tiles, turn + 1);
    commit_copies();
    if constexpr (!Thread::kGiven) {
      if (turn > 0) add_to_proj(t, turn - 1, last_count);
      last_count = count;
    }

    // Recomputes the states, and how the steps change the gradient of one.
    float2 scaled[kOneStateSteps], dt[kOneStateSteps], a[kOneStateSteps], h[kOneStateSteps];
    Affine map{make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f)}, all = map;
    const auto v = t.tile(turn);
    t.delta(v, weights, bias, dt);
#pragma unroll
    for (int i = 0; i < kOneStateSteps; ++i) {
      scaled[i] = kLog2e * dt[i];
      dt[i] = Thread::steps_of(dt[i], scaled[i]);
      a[i] = exp2_fast(dt[i] * A);
      h[i] = v.maps(i).x * (dt[i] * to_float2(v.x(i)));
      map.P = map.P * a[i];
      map.S = fma2(a[i], map.S, h[i]);
    }
    const float2 start = chain_lanes<false>(map, entering, t.lane);
    float2 state = start;
#pragma unroll
    for (int i = 0; i < kOneStateSteps; ++i) {
      state = fma2(a[i], state, h[i]);
      h[i] = state;
    }
#pragma unroll
    for (int i = kOneStateSteps - 1; i >= 0; --i) {
      all.S = a[i] * fma2(v.maps(i).y, v.dy(i), all.S);
    }
    all.P = map.P;
    if (count <= 0) all = {make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f)};
    t.sync_tile();  // the last tile's sums have been read
    float2 at_tile, carried = t.template hand_over<true>(all, carry.S, at_tile, turn);
    if (count <= 0) continue;

    float map_sums[2 * kOneStateSteps];  // by step the gradients of its Bs and Cs
    const int steps = t.own_steps(count);
    const auto walk = [&](auto whole, auto skip) {
      if (!whole.value && !t.valid) carried = make_float2(0.0f, 0.0f);  // of another lane's channels
      int2 at{};
#pragma unroll
      for (int i = kOneStateSteps - 1; i >= 0; --i) {
        const float2 maps = v.maps(i), x = to_float2(v.x(i)), dy = v.dy(i);
        const float2 g = fma2(maps.y, dy, carried), gB = maps.x * g, dtx = dt[i] * x;
        carried = a[i] * g;
        const float2 q = carried * (i > 0 ? h[i - 1] : start);
        map_sums[2 * i] = fmaf(g.x, dtx.x, g.y * dtx.y);
        map_sums[2 * i + 1] = fmaf(h[i].x, dy.x, h[i].y * dy.y);
        sums.A = fma2(dt[i], q, sums.A);
        float2 dx = gB * dt[i];
        if constexpr (skip.value) {
          sums.D = fma2(dy, x, sums.D);
          dx = fma2(D, dy, dx);
        }
        if (i % 2 == 1) at = v.places(i / 2);
        const int place = i % 2 == 1 ? at.y : at.x;
        add_to(Thread::row_at(t.image_to, place, p.D * sizeof(float)), dx, whole.value || i < steps);
        const float2 ddt = fma2(natural_A, q, gB * x);
        dt[i] = make_float2(ddt.x * logistic_of_scaled(scaled[i].x), ddt.y * logistic_of_scaled(scaled[i].y));
        sums.bias.x += dt[i].x;
        sums.bias.y += dt[i].y;
        if constexpr (Thread::kGiven) {
          float* to = static_cast<float*>(p.ddelta) + t.b * p.delta_b + t.k * p.delta_k + t.channel;
          if (whole.value || i < steps) {
            *reinterpret_cast<float2*>(Thread::row_at(to, place, p.delta_l * sizeof(float))) = dt[i];
          }
        }
      }
    };
    if (!t.is_whole(count)) {
      walk(std::false_type{}, std::true_type{});
    } else if (t.adds_skip()) {
      walk(std::true_type{}, std::true_type{});
    } else {
      walk(std::true_type{}, std::false_type{});
    }

    using MapSum = LaneSum<2 * kOneStateSteps, 8, 4>;
    MapSum::run(map_sums, t.lane);
    const int summed = t.slots + Thread::slot(MapSum::first(t.lane) / 2);
    if constexpr (Thread::kGiven) {
      if (Thread::step_of(summed) < count) {
        const int64_t to = t.b * p.bc_b + t.k * p.bc_k + t.places(turn)[summed] * p.bc_l;
        add_to(p.dBs + to, map_sums[0]);
        add_to(p.dCs + to, map_sums[1]);
      }
    } else {
      t.map_sums(t.warp)[summed] = make_float2(map_sums[0], map_sums[1]);
      float* rank_sums = t.rank_sums(t.warp) + t.lane / 4 * Thread::Layout::kRankRow + 2 * (t.lane % 4);
      if constexpr (Thread::F::k16Bit) {
        add_products_16bit(t, v, weights, dt, sums, rank_sums);
      } else {
        add_products_float32(t, v, dt, sums, rank_sums);
      }
    }
  }
  if constexpr (!Thread::kGiven) {
    __syncthreads();
    add_to_proj(t, turn - 1, last_count);
  }
  t.sync_cluster();  // from here on nothing is handed to another block
  sums.write(t, p.a_is_log ? natural_A : make_float2(1.0f, 1.0f), reinterpret_cast<float*>(shared));
}

}  // namespace swin_umamba
