// Loads inputs of any strides and dtypes, with delta, Bs and Cs as tensors: the 1-D scan in mamba-ssm's
// layout, and the image scan where image.cuh does not apply.
#pragma once

#include "gradient_tile.cuh"
#include "mapping.cuh"
#include "math.cuh"

namespace swin_umamba {

template <class M_, Walk kWalk>
struct StridedLoader {
  using M = M_;
  using Params = StridedParams;
  static constexpr bool kBackward = kWalk == Walk::kBackward, kReverse = kWalk != Walk::kForward;
  static constexpr bool k16Bit = false;  // inputs may be float32
  static constexpr int kDyRow = M::WC + 2;  // padded against bank conflicts, keeping pairs aligned

  static __host__ __device__ int shared_bytes(const Params&) {
    return kBackward ? M::kWarps * kTile * kDyRow * 4 : 0;
  }

  const Params& p;
  const Block& w;
  const Lane<M>& t;
  float* dy;     // (kTile, kDyRow) of the warp
  int warp_channel;
  float dD = 0.0f, dbias = 0.0f;

  __device__ StridedLoader(const Params& p, const Block& w, const Lane<M>& t, char* own)
      : p(p), w(w), t(t),
        dy(reinterpret_cast<float*>(own) + t.warp * kTile * kDyRow),
        warp_channel(w.channel + t.warp * M::WC) {}

  // Everything is read in prepare(): there is nothing to prefetch or to wait for.
  __device__ void begin(float*) {}
  __device__ void load(int) {}
  struct Prefetched {};
  __device__ Prefetched prefetch(int) const { return {}; }
  __device__ void wait() {}
  __device__ const float* dy_row(int step) const { return dy + step * kDyRow; }

  // Item i of a lane: lanes run along whichever axis is contiguous in memory.
  __device__ void item(const Lane<M>& t, int i, int& step, int& channel) const {
    if (p.x_d == 1) {
      step = (i * 32 + t.lane) / M::WC;
      channel = (i * 32 + t.lane) % M::WC;
    } else {
      step = t.lane;
      channel = i;
    }
  }

  template <class F>
  __device__ void for_bc(int at, F f) const {
#pragma unroll 4
    for (int i = t.thread(); i < kTile * M::N; i += M::kThreads) {
      const bool states_first = p.bc_n == 1;
      const int step = states_first ? i / M::N : i % kTile;
      const int n = states_first ? i % M::N : i / kTile;
      const int64_t pos = __shfl_sync(~0u, at, step);
      f(step, n, w.b * p.bc_b + (w.k * p.G + w.group) * p.bc_k + pos * p.bc_l + n * p.bc_n);
    }
  }

  __device__ void prepare(int tile, const Prefetched&, const Stage<M, kBackward>& stage) {
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    const int count = w.steps(tile);
    const int at = w.lane_position(p, tile);
    for_bc(at, [&](int step, int n, int64_t i) {
      const bool valid = step < count && n < p.N;
      stage.bc[step * 2 * M::N + n] = valid ? load_as_float(p.Bs, i, p.dtype) : 0.0f;
      stage.bc[step * 2 * M::N + M::N + n] = valid ? load_as_float(p.Cs, i, p.dtype) : 0.0f;
    });
#pragma unroll 4
    for (int i = 0; i < M::WC; ++i) {
      int step, channel;
      item(t, i, step, channel);
      const int64_t pos = __shfl_sync(~0u, at, step);
      const int c = warp_channel + channel;
      float dt = 0.0f, x = 0.0f, g = 0.0f;
      if (step < count && c < w.channel_end) {
        const int64_t kc = static_cast<int64_t>(w.k) * p.D + c;
        dt = load_as_float(p.delta, w.b * p.delta_b + w.k * p.delta_k + pos * p.delta_l + c * p.delta_d,
                           p.delta_dtype);
        if (p.bias) dt += p.bias[kc];
        if (p.softplus) dt = softplus(dt);
        if constexpr (kWalk != Walk::kCarry) {
          x = load_as_float(p.x, w.b * p.x_b + pos * p.x_l + c * p.x_d, p.dtype);
        }
        if constexpr (kReverse) {
          g = static_cast<const float*>(p.dout)[w.b * p.dout_b + pos * p.dout_l + c * p.dout_d];
        }
      }
      *reinterpret_cast<float2*>(stage.steps + step * stage.kRow + 2 * channel) =
          make_float2(dt, kWalk == Walk::kCarry ? g : dt * x);
      if constexpr (kBackward) dy[step * kDyRow + channel] = g;
    }
  }

  __device__ void write_outputs(int tile, const Stage<M, kBackward>& stage) {
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    const int count = w.steps(tile);
    const int at = w.lane_position(p, tile);
#pragma unroll 4
    for (int i = 0; i < M::WC; ++i) {
      int step, channel;
      item(t, i, step, channel);
      const int64_t pos = __shfl_sync(~0u, at, step);
      const int c = warp_channel + channel;
      if (step >= count || c >= w.channel_end) continue;
      float y = stage.steps[step * stage.kRow + channel];
      if (p.Ds) {
        y += p.Ds[static_cast<int64_t>(w.k) * p.D + c] *
             load_as_float(p.x, w.b * p.x_b + pos * p.x_l + c * p.x_d, p.dtype);
      }
      const int64_t o = w.b * p.out_b + pos * p.out_l + c * p.out_d;
      if (p.accumulate) {
        add_to(static_cast<float*>(p.out) + o, y);
      } else {
        store_from_float(p.out, o, p.out_dtype, y);
      }
    }
  }

  // dx and ddelta.
  __device__ void write_gradients(int tile, const GradientTile<M>& tile_sums,
                                  const Stage<M, kBackward>& stage) {
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    const int count = w.steps(tile);
    const int at = w.lane_position(p, tile);
    __syncwarp();
#pragma unroll 2
    for (int i = 0; i < M::WC; ++i) {
      int step, channel;
      item(t, i, step, channel);
      const int64_t pos = __shfl_sync(~0u, at, step);
      const int c = warp_channel + channel;
      float2* at_step = reinterpret_cast<float2*>(stage.steps + step * stage.kRow + 2 * channel);
      float ddelta = 0.0f, dyx = 0.0f;
      if (step < count && c < w.channel_end) {
        const float dt = at_step->x;
        const float2 sum =
            *reinterpret_cast<const float2*>(tile_sums.channels(step) + 2 * channel);
        const float g = dy[step * kDyRow + channel];
        const int64_t xi = w.b * p.x_b + pos * p.x_l + c * p.x_d;
        const float x = load_as_float(p.x, xi, p.dtype);
        ddelta = fmaf(x, sum.y, kLn2 * sum.x);
        if (p.softplus) ddelta *= softplus_grad(dt);
        dyx = g * x;
        float dx = dt * sum.y;
        if (p.Ds) dx = fmaf(p.Ds[static_cast<int64_t>(w.k) * p.D + c], g, dx);
        if (p.accumulate) {
          add_to(static_cast<float*>(p.dx) + xi, dx);
        } else {
          store_from_float(p.dx, xi, p.dtype, dx);
        }
        store_from_float(p.ddelta,
                         w.b * p.delta_b + w.k * p.delta_k + pos * p.delta_l + c * p.delta_d,
                         p.delta_dtype, ddelta);
      }
      *at_step = make_float2(ddelta, dyx);
    }
    __syncwarp();
    // Column sums, with lanes over channels in any layout.
#pragma unroll 4
    for (int i = 0; i < M::WC; ++i) {
      const int item = i * 32 + t.lane;
      const float2 v =
          *reinterpret_cast<float2*>(stage.steps + (item / M::WC) * stage.kRow + 2 * (item % M::WC));
      dbias += v.x;
      dD += v.y;
    }
  }

  // After a barrier: the gradients of the whole block. `sums` is the first warp's tile.
  __device__ void write_block_gradients(int tile, const GradientTile<M>& sums,
                                        const Stage<M, kBackward>&) {
    const int count = w.steps(tile);
    for_bc(w.lane_position(p, tile), [&](int step, int n, int64_t i) {
      if (step >= count || n >= p.N) return;
      float b = 0.0f, c = 0.0f;
#pragma unroll
      for (int v = 0; v < M::kWarps; ++v) {
        const float* from = sums.state_sums(step) + v * GradientTile<M>::kFloats;
        b += from[n];
        c += from[M::N + n];
      }
      add_to(p.dBs + i, b);
      add_to(p.dCs + i, c);
    });
  }

  __device__ void finish() {
#pragma unroll
    for (int stride = M::WC; stride < 32; stride *= 2) {
      dbias += __shfl_xor_sync(~0u, dbias, stride);
      dD += __shfl_xor_sync(~0u, dD, stride);
    }
    const int c = warp_channel + t.lane;
    if (t.lane >= M::WC || c >= w.channel_end) return;
    const int64_t o = (w.sum_row(p) * p.K + w.k) * p.D + c;
    if (p.dbias) add_to(p.dbias + o, kSumScale * dbias);
    if (p.dDs) add_to(p.dDs + o, kSumScale * dD);
  }
};

}  // namespace swin_umamba
