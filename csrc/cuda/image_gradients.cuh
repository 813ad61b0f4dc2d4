// Gradients of images from the sums of a tile: dx, those of the parameters, and dproj.
#pragma once

#include "image.cuh"

namespace swin_umamba {

// dx and ddelta, and what the latter adds to the gradients of Ds, bias and dt_weight: of this warp alone.
template <class M_, class T, bool kPieces, Walk kWalk>
__device__ inline void ImageLoader<M_, T, kPieces, kWalk>::write_gradients(
    int tile, const GradientTile<M>& tile_sums, const Stage<M, kBackward>& stage) {
  const Lane<M> t = kBackward ? this->t.recompute() : this->t;
  const int count = w.steps(tile);
  float* dx = static_cast<float*>(p.dx) + static_cast<int64_t>(w.b) * w.length * p.D + w.channel;
  T* ddeltas = ddelta_of(stage, t.warp);
  const int first = lane_channel(t, 0), own = first - t.warp * M::WC;
  bool channel_valid[kColumns];
  float2 D[kColumns];
  // By column dDs, then dbias: float16 would lose the small ddelta of which dbias is the sum.
  float sums_of_parameters[4 * kColumns] = {};
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    channel_valid[j] = w.channel + first + 8 * j < w.channel_end;
    D[j] = parameter(p.Ds, t, j);
  }
  constexpr int kRows = 2;  // at a time: more would spill registers
#pragma unroll 1
  for (int part = 0; part < kTile / 8; part += kRows) {
    // Without branches, so that the rows' latencies overlap. Past the end x and dout are 0, but the
    // sums of steps that were not walked are undefined.
    int pos[kRows];
    float4 v[kRows][kColumns], sum[kRows][kColumns];
    float2 x[kRows][kColumns], g[kRows][kColumns];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int step = 8 * (part + i) + t.lane / 4;
      pos[i] = places_of(tile)[step];
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        v[i][j] = *reinterpret_cast<const float4*>(stage.steps + step * stage.kRow + 2 * (own + 8 * j));
        x[i][j] = to_float2(*reinterpret_cast<const T2*>(x_of(tile) + step * kXRow + first + 8 * j));
        g[i][j] = *reinterpret_cast<const float2*>(dy + step * kDyRow + first + 8 * j);
        sum[i][j] = *reinterpret_cast<const float4*>(tile_sums.channels(step) + 2 * (own + 8 * j));
      }
    }
    __syncwarp();  // every lane has read its dt of these rows, which ddelta overwrites
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int step = 8 * (part + i) + t.lane / 4;
      float* dx_row = dx + static_cast<int64_t>(pos[i]) * p.D + first;
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const bool valid = step < count && channel_valid[j];
        const float4 dt = v[i][j], s = sum[i][j];
        float2 ddelta;
        ddelta.x = fmaf(x[i][j].x, s.y, kLn2 * s.x) * softplus_grad(dt.x);
        ddelta.y = fmaf(x[i][j].y, s.w, kLn2 * s.z) * softplus_grad(dt.z);
        if (!valid) ddelta = make_float2(0.0f, 0.0f);
        if (valid) {
          add_to(dx_row + 8 * j,
                 make_float2(fmaf(D[j].x, g[i][j].x, dt.x * s.y), fmaf(D[j].y, g[i][j].y, dt.z * s.w)));
        }
        sums_of_parameters[4 * j] = fmaf(g[i][j].x, x[i][j].x, sums_of_parameters[4 * j]);
        sums_of_parameters[4 * j + 1] = fmaf(g[i][j].y, x[i][j].y, sums_of_parameters[4 * j + 1]);
        sums_of_parameters[4 * j + 2] += ddelta.x;
        sums_of_parameters[4 * j + 3] += ddelta.y;
        from_float2(ddelta, *reinterpret_cast<T2*>(ddeltas + step * kDdeltaRow + own + 8 * j));
      }
    }
  }
  parameter_sums.add(sums_of_parameters, t.lane);
  __syncwarp();
  add_weight_gradients(tile, t, ddeltas);
}

// ddelta^T @ the rank's part of proj.
template <class M_, class T, bool kPieces, Walk kWalk>
__device__ inline void ImageLoader<M_, T, kPieces, kWalk>::add_weight_gradients(
    int tile, const Lane<M>& t, const T* ddelta) {
  const int rank = this->rank(), words = this->words();
  float* dweight = p.ddt_weight + (w.sum_row(p) * p.K + w.k) * p.D * p.R;
  const uint32_t* p_tile = proj_of(tile);
#pragma unroll
  for (int c = 0; c < M::WC; c += 16) {
    typename F::A a[kTile / 8];
#pragma unroll
    for (int s = 0; s < kTile / 8; ++s) {
      a[s] = F::template turned<(M::WC >= 16)>(ddelta + 8 * s * kDdeltaRow + c, kDdeltaRow, t.lane);
    }
    const int channel = w.channel + t.warp * M::WC + c + t.lane / 4;
#pragma unroll 1
    for (int r = 0; r < rank; r += 8) {
      float sum[4] = {};
#pragma unroll
      for (int s = 0; s < kTile / 8; ++s) {
        const T* rows = reinterpret_cast<const T*>(p_tile + 8 * s * words) + r;
        F::multiply_add(sum, a[s], F::columns(rows, words * 4 / sizeof(T), t.lane, p.R - r));
      }
      // Added to global memory at once: a block's own sums in shared memory would reduce occupancy.
      const int column = r + 2 * (t.lane % 4);
#pragma unroll
      for (int v = 0; v < 4; ++v) sum[v] *= kSumScale;
      if (column < p.R) {
        float* to = dweight + static_cast<int64_t>(channel) * p.R + column;
        if (channel < w.channel_end) add_to(to, make_float2(sum[0], sum[1]));
        if (M::WC >= 16 && channel + 8 < w.channel_end) add_to(to + 8 * p.R, make_float2(sum[2], sum[3]));
      }
    }
  }
}

// After a barrier: dproj, by a product with ddelta and by sums over the warps. `sums` is the first
// warp's tile.
template <class M_, class T, bool kPieces, Walk kWalk>
__device__ inline void ImageLoader<M_, T, kPieces, kWalk>::write_block_gradients(
    int tile, const GradientTile<M>& sums, const Stage<M, kBackward>& stage) {
  const Lane<M> t = kBackward ? this->t.recompute() : this->t;
  const int count = w.steps(tile);
  const int rank = this->rank();
  const int width = p.R + 2 * M::N;
  float* dproj = p.dproj + (static_cast<int64_t>(w.b) * w.length * p.K + w.k) * width;
  const uint32_t row = p.K * width;
  // One multiplication: positions and rows are 32 bits wide, their product is not.
  const auto row_of = [&](int pos) { return dproj + static_cast<uint64_t>(static_cast<uint32_t>(pos)) * row; };

  for (int i = t.warp; i < rank / 4; i += M::kWarps) {  // ddelta @ weight, 16 x 8 at a time
    const int half = i % 2, r = i / 2 * 8;
    float sum[4] = {};
#pragma unroll
    for (int c = 0; c < M::kChannels; c += 8) {
      const auto b = weights<true>(t, c, r);
      const T* ddelta = ddelta_of(stage, c / M::WC) + 16 * half * kDdeltaRow + c % M::WC;
      F::multiply_add(sum, F::rows(ddelta, kDdeltaRow, t.lane, 8), b);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int step = 16 * half + 8 * e + t.lane / 4;
      const int pos = places_of(tile)[step];
      const int column = r + 2 * (t.lane % 4);
      if (step < count && column < p.R) {
        add_to(row_of(pos) + column, make_float2(sum[2 * e], sum[2 * e + 1]));
      }
    }
  }

  // kAtOnce at a time, so that their latencies overlap.
  using StateSums = StateSumsFor<M, k16Bit>;
  constexpr int kMaps = 2 * M::N, kVector = kMaps < 4 ? kMaps : 4;  // of Bs and Cs; adjacent
  constexpr int kItems = ceil_div(kTile * kMaps / kVector, M::kThreads), kAtOnce = kItems < 2 ? kItems : 2;
#pragma unroll
  for (int first = 0; first < kItems; first += kAtOnce) {
    float part[kAtOnce][M::kWarps][kVector];
    int pos[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int i = ((first + u) * M::kThreads + t.thread()) * kVector, step = i / kMaps % kTile;
      pos[u] = places_of(tile)[step];
#pragma unroll
      for (int v = 0; v < M::kWarps; ++v) {
        load_vector(sums.state_sums(step) + v * GradientTile<M>::kFloats + i % kMaps, part[u][v]);
      }
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int i = ((first + u) * M::kThreads + t.thread()) * kVector, step = i / kMaps, n = i % kMaps;
      const float scale = n < M::N ? StateSums::kScaleB : StateSums::kScaleC;
      float sum[kVector];
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        sum[j] = part[u][0][j];
#pragma unroll
        for (int v = 1; v < M::kWarps; ++v) sum[j] += part[u][v][j];
        sum[j] *= scale;
      }
      if (step >= count) continue;
      float* to = row_of(pos[u]) + p.R + n;
#pragma unroll
      for (int j = 0; j < kVector; j += 2) add_to(to + j, make_float2(sum[j], sum[j + 1]));
    }
  }
}

}  // namespace swin_umamba
