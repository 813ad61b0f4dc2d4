// Gradients of sequences from the sums of a tile: du, ddelta, those of the parameters, and of Bs and Cs.
#pragma once

#include "sequence.cuh"

namespace swin_umamba {

// du and ddelta, and what they add to the gradients of D and delta_bias: of this warp alone.
template <class M_, class T, Walk kWalk>
__device__ inline void SequenceLoader<M_, T, kWalk>::write_gradients(
    int tile, const GradientTile<M>& tile_sums, const Stage<M, kBackward>& stage) {
  const Lane<M> t = kBackward ? this->t.recompute() : this->t;
  const int count = w.steps(tile);
  // Lane 4i+j takes steps i + 8 * _, channels 8 * column + 2j + {0, 1} of its warp.
  const int first = 2 * (t.lane % 4), warp_channel = t.warp * M::WC;
  T* us = u_of(tile) + warp_channel * kRow;
  T* deltas = delta_of(tile) + warp_channel * kRow;
  float sums_of_parameters[4 * kColumns] = {};  // by column dD, then ddelta_bias
  float D[kColumns][2];
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) D[j][e] = skip(w.channel + warp_channel + first + 8 * j + e);
  }
#pragma unroll 1
  for (int part = 0; part < kTile / 8; part += 2) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int step = 8 * (part + i) + t.lane / 4;
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const int c = first + 8 * j;
        const float4 dt = *reinterpret_cast<const float4*>(stage.steps + step * stage.kRow + 2 * c);
        const float4 sum = *reinterpret_cast<const float4*>(tile_sums.channels(step) + 2 * c);
        const float2 g = *reinterpret_cast<const float2*>(dy + step * kDyRow + c);
        T *u0 = us + c * kRow + step, *u1 = u0 + kRow;
        const float x0 = value(u0), x1 = value(u1);
        float d0 = fmaf(x0, sum.y, kLn2 * sum.x), d1 = fmaf(x1, sum.w, kLn2 * sum.z);
        if (p.softplus) {
          d0 *= softplus_grad(dt.x);
          d1 *= softplus_grad(dt.z);
        }
        if (step >= count) d0 = d1 = 0.0f;  // the sums of steps that were not walked are undefined
        sums_of_parameters[4 * j] = fmaf(g.x, x0, sums_of_parameters[4 * j]);
        sums_of_parameters[4 * j + 1] = fmaf(g.y, x1, sums_of_parameters[4 * j + 1]);
        sums_of_parameters[4 * j + 2] += d0;
        sums_of_parameters[4 * j + 3] += d1;
        put(u0, fmaf(D[j][0], g.x, dt.x * sum.y));
        put(u1, fmaf(D[j][1], g.y, dt.z * sum.w));
        put(deltas + c * kRow + step, d0);
        put(deltas + (c + 1) * kRow + step, d1);
      }
    }
  }
  parameter_sums.add(sums_of_parameters, t.lane);
  __syncwarp();
  const int64_t start = tile * kTile, channel = w.channel + warp_channel;
  T* du = static_cast<T*>(p.dx) + w.b * p.x_b + channel * p.x_d + start;
  T* ddelta = static_cast<T*>(p.ddelta) + w.b * p.delta_b + channel * p.delta_d + start;
  for_pieces(t, count, [&](int c, int step) {
    *reinterpret_cast<Q*>(du + c * p.x_d + step) = *reinterpret_cast<const Q*>(us + c * kRow + step);
    *reinterpret_cast<Q*>(ddelta + c * p.delta_d + step) =
        *reinterpret_cast<const Q*>(deltas + c * kRow + step);
  });
}

// After a barrier: dBs and dCs, by sums over the warps. `sums` is the first warp's tile.
template <class M_, class T, Walk kWalk>
__device__ inline void SequenceLoader<M_, T, kWalk>::write_block_gradients(
    int tile, const GradientTile<M>& sums, const Stage<M, kBackward>&) {
  const Lane<M> t = kBackward ? this->t.recompute() : this->t;
  constexpr int kMaps = 2 * M::N, kItems = kMaps * kPieces;
  const int count = w.steps(tile);
  const int64_t start = w.b * p.bc_b + w.group * p.bc_k + tile * kTile;
#pragma unroll
  for (int first = 0; first < kItems; first += M::kThreads) {
    const int i = first + t.thread(), map = i % kMaps, n = map % M::N, step = 4 * (i / kMaps);
    if (kItems % M::kThreads && i >= kItems) break;
    float sum[4] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int v = 0; v < M::kWarps; ++v) {
        sum[j] += sums.state_sums(step + j)[v * GradientTile<M>::kFloats + map];
      }
    }
    if (step < count && n < p.N) {
      using StateSums = StateSumsFor<M, k16Bit>;
      const float scale = map < M::N ? StateSums::kScaleB : StateSums::kScaleC;
      add_to((map < M::N ? p.dBs : p.dCs) + start + n * p.bc_n + step,
             make_float4(scale * sum[0], scale * sum[1], scale * sum[2], scale * sum[3]));
    }
  }
}

}  // namespace swin_umamba
