// Loads the 1-D scan in mamba-ssm's layout, steps contiguous: rows of u, delta, Bs and Cs, all of one
// dtype, are copied as they are, in pieces of four steps, and transposed before the scan.
#pragma once

#include "gradient_tile.cuh"
#include "mapping.cuh"
#include "math.cuh"
#include "matrix.cuh"
#include "parameter_sums.cuh"
#include "state_sums.cuh"

namespace swin_umamba {

// Four values, moved by one copy.
template <class T>
struct Quad;
template <>
struct Quad<float> { using type = float4; };
template <>
struct Quad<__half> { using type = uint2; };
template <>
struct Quad<__nv_bfloat16> { using type = uint2; };

template <class M_, class T, Walk kWalk>
struct SequenceLoader {
  using M = M_;
  using Params = StridedParams;
  static constexpr bool kBackward = kWalk == Walk::kBackward, kReverse = kWalk != Walk::kForward;
  static constexpr bool kCarry = kWalk == Walk::kCarry;  // of dout, which takes the place of u
  using Q = typename Quad<T>::type;
  static constexpr bool k16Bit = sizeof(T) == 2;
  static constexpr int kPieces = kTile / 4;             // of a row
  static constexpr int kRow = kTile + 4;                // of T: rows start in different banks
  // Tiles of u: as in image.cuh. Those of delta, Bs and Cs are read while staging only.
  static constexpr int kXTiles = kBackward ? 1 : kCarry ? 2 : 4, kTiles = kBackward ? 1 : 2;
  static constexpr int kXItem = kCarry ? 4 : sizeof(T);  // dout may be float32
  static constexpr int kDyRow = M::WC + 2;              // padded against bank conflicts, pairs aligned

  static constexpr int kColumns = M::WC / 8;            // 8-channel blocks of a warp
  static_assert(M::N >= 4, "Bs and Cs are staged four at a time");

  static __host__ __device__ int shared_bytes(const Params&) {
    const int rows = kXTiles * M::kChannels * kXItem + kTiles * (M::kChannels + 2 * M::N) * int{sizeof(T)};
    const int values = M::kChannels + (kBackward ? M::kWarps * kTile * kDyRow : 0);
    return rows * kRow + values * 4;
  }

  ParameterSums<M> parameter_sums;

  const Params& p;
  const Block& w;
  const Lane<M>& t;
  char* us;      // (kXTiles, channels, kRow) of T, or of dout's type; backwards du overwrites it
  T* all_delta;  // (kTiles, channels, kRow); backwards ddelta overwrites it
  T* all_maps;   // (kTiles, 2N, kRow): Bs, then Cs
  float* bias;   // (channels); zeros where there is none
  float* dy;     // (kTile, kDyRow) of the warp, backward only

  __device__ SequenceLoader(const Params& p, const Block& w, const Lane<M>& t, char* own)
      : p(p), w(w), t(t) {
    us = own;
    all_delta = reinterpret_cast<T*>(us + kXTiles * M::kChannels * kRow * kXItem);
    all_maps = all_delta + kTiles * M::kChannels * kRow;
    bias = reinterpret_cast<float*>(all_maps + kTiles * 2 * M::N * kRow);
    dy = bias + M::kChannels + t.warp * kTile * kDyRow;
  }

  template <class X = T>
  __device__ X* u_of(int tile) const {
    return reinterpret_cast<X*>(us + (tile - w.first_tile) % kXTiles * M::kChannels * kRow * kXItem);
  }
  __device__ T* delta_of(int tile) const {
    return all_delta + (tile - w.first_tile) % kTiles * M::kChannels * kRow;
  }
  __device__ T* maps_of(int tile) const {
    return all_maps + (tile - w.first_tile) % kTiles * 2 * M::N * kRow;
  }

  __device__ void begin(float*) {
    for (int i = t.thread(); i < M::kChannels; i += M::kThreads) {
      const bool valid = w.channel + i < w.channel_end;
      bias[i] = valid && p.bias ? p.bias[w.channel + i] : 0.0f;
    }
    load(w.tile<kReverse>(0));
  }

  // kRows rows of a tile, of which `valid` exist; `stride` values apart.
  template <int kRows, class X>
  __device__ void load_rows(const Lane<M>& t, X* to, const void* from, int64_t offset, int64_t stride,
                            int valid, int count) const {
    constexpr int kItems = kRows * kPieces;
    const X* rows = static_cast<const X*>(from) + offset;
#pragma unroll
    for (int first = 0; first < kItems; first += M::kThreads) {
      const int i = first + t.thread(), row = i / kPieces, step = 4 * (i % kPieces);
      if (kItems % M::kThreads && i >= kItems) break;
      const bool exists = row < valid && step < count;
      copy_async<4 * sizeof(X)>(to + row * kRow + step, rows + (exists ? row * stride + step : 0), exists);
    }
  }

  __device__ void load(int tile) {
    if (tile < w.first_tile || tile >= w.last_tile) return;
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    const int count = w.steps(tile), first = tile * kTile, channels = w.channel_end - w.channel;
    if constexpr (kCarry) {
      const int64_t dout = w.b * p.dout_b + w.channel * p.dout_d + first;
      if (dout_is_float32()) {
        load_rows<M::kChannels>(t, u_of<float>(tile), p.dout, dout, p.dout_d, channels, count);
      } else {
        load_rows<M::kChannels>(t, u_of(tile), p.dout, dout, p.dout_d, channels, count);
      }
    } else {
      load_rows<M::kChannels>(t, u_of(tile), p.x, w.b * p.x_b + w.channel * p.x_d + first, p.x_d, channels,
                              count);
    }
    load_rows<M::kChannels>(t, delta_of(tile), p.delta, w.b * p.delta_b + w.channel * p.delta_d + first,
                            p.delta_d, channels, count);
    const int64_t maps = w.b * p.bc_b + w.group * p.bc_k + first;
    load_rows<M::N>(t, maps_of(tile), p.Bs, maps, p.bc_n, p.N, count);
    load_rows<M::N>(t, maps_of(tile) + M::N * kRow, p.Cs, maps, p.bc_n, p.N, count);
    if constexpr (kBackward) {
      if (dout_is_float32()) {  // transposed by the copies themselves
        const int channel = w.channel + t.warp * M::WC;
        const float* all = static_cast<const float*>(p.dout);
        const float* from = all + w.b * p.dout_b + channel * p.dout_d + first;
#pragma unroll 4
        for (int i = 0; i < M::WC; ++i) {
          const bool exists = channel + i < w.channel_end && t.lane < count;
          copy_async<4>(dy + t.lane * kDyRow + i, exists ? from + i * p.dout_d + t.lane : all, exists);
        }
      }
    }
  }

  __device__ float skip(int channel) const {
    return p.Ds && channel < w.channel_end ? p.Ds[channel] : 0.0f;
  }

  __device__ void wait() { wait_for_copies(); }

  __device__ const float* dy_row(int step) const { return dy + step * kDyRow; }

  __device__ bool dout_is_float32() const { return sizeof(T) == 4 || p.dout_dtype == kFloat32; }

  // 16-bit values of dout, too small for such copies: a step of each of the warp's channels.
  struct Prefetched {
    T dout[kBackward && sizeof(T) == 2 ? M::WC : 1];
  };
  __device__ Prefetched prefetch(int tile) const {
    Prefetched a{};
    if constexpr (kBackward && sizeof(T) == 2) {
      if (dout_is_float32()) return a;
      const Lane<M> t = this->t.recompute();
      const int channel = w.channel + t.warp * M::WC, count = w.steps(tile);
      const T* from = static_cast<const T*>(p.dout) + w.b * p.dout_b + channel * p.dout_d + tile * kTile;
#pragma unroll
      for (int i = 0; i < M::WC; ++i) {
        const bool exists = channel + i < w.channel_end && t.lane < count;
        a.dout[i] = exists ? from[i * p.dout_d + t.lane] : T(0.0f);
      }
    }
    return a;
  }

  template <class X>
  __device__ static float value(const X* from) {
    if constexpr (sizeof(X) == 4) {
      return *from;
    } else {
      return to_float(*from);
    }
  }
  __device__ static void put(T* to, float v) {
    if constexpr (sizeof(T) == 4) {
      *to = v;
    } else {
      *to = T(v);
    }
  }

  // After the copies have landed and a barrier.
  __device__ void prepare(int tile, const Prefetched& prefetched, const Stage<M, kBackward>& stage) {
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    const int count = w.steps(tile);
    if constexpr (kBackward && sizeof(T) == 2) {
      if (!dout_is_float32()) {
#pragma unroll
        for (int i = 0; i < M::WC; ++i) dy[t.lane * kDyRow + i] = value(prefetched.dout + i);
      }
    }
    constexpr int kQuads = 2 * M::N / 4, kItems = kTile * kQuads;
    const T* maps = maps_of(tile);
#pragma unroll
    for (int first = 0; first < kItems; first += M::kThreads) {
      const int i = first + t.thread(), step = i / kQuads, n = 4 * (i % kQuads);
      if (kItems % M::kThreads && i >= kItems) break;
      const T* from = maps + n * kRow + step;
      *reinterpret_cast<float4*>(stage.bc + step * 2 * M::N + n) =
          make_float4(value(from), value(from + kRow), value(from + 2 * kRow), value(from + 3 * kRow));
    }
    if (kCarry && dout_is_float32()) {
      stage_steps(t, tile, count, u_of<float>(tile), stage);
    } else {
      stage_steps(t, tile, count, u_of(tile), stage);
    }
  }

  // Delta and u (or dout): one step per lane, two channels at a time.
  template <class X>
  __device__ void stage_steps(const Lane<M>& t, int tile, int count, const X* us,
                              const Stage<M, kBackward>& stage) const {
    const X* u = us + t.warp * M::WC * kRow + t.lane;
    const T* delta = delta_of(tile) + t.warp * M::WC * kRow + t.lane;
    const float* own_bias = bias + t.warp * M::WC;
#pragma unroll 4
    for (int c = 0; c < M::WC; c += 2) {
      float dt[2], x[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        dt[j] = value(delta + (c + j) * kRow) + own_bias[c + j];
        x[j] = value(u + (c + j) * kRow);
        if (p.softplus) dt[j] = softplus(dt[j]);
        if (t.lane >= count) dt[j] = 0.0f;
      }
      *reinterpret_cast<float4*>(stage.steps + t.lane * stage.kRow + 2 * c) =
          kCarry ? make_float4(dt[0], x[0], dt[1], x[1]) : make_float4(dt[0], dt[0] * x[0], dt[1], dt[1] * x[1]);
    }
  }

  // Calls f(channel of the warp, first of four steps) for what this lane writes of a tile: four adjacent
  // lanes along a row.
  template <class F>
  __device__ void for_pieces(const Lane<M>& t, int count, F f) const {
    constexpr int kItems = M::WC * kPieces / 32;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int channel = t.lane / 4 + i / (kPieces / 4) * 8, step = 4 * (t.lane % 4 + i % (kPieces / 4) * 4);
      if (w.channel + t.warp * M::WC + channel < w.channel_end && step < count) f(channel, step);
    }
  }

  __device__ void write_outputs(int tile, const Stage<M, kBackward>& stage) {
    const Lane<M> t = this->t;
    const T* us = u_of(tile) + t.warp * M::WC * kRow;
    const int64_t out = w.b * p.out_b + (w.channel + t.warp * M::WC) * p.out_d + tile * kTile;
    for_pieces(t, w.steps(tile), [&](int channel, int step) {
      const T* u = us + channel * kRow + step;
      const float D = skip(w.channel + t.warp * M::WC + channel);
      float y[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        y[j] = fmaf(D, value(u + j), stage.steps[(step + j) * stage.kRow + channel]);
      }
      const int64_t at = out + channel * p.out_d + step;
      if (p.out_dtype == kFloat32) {
        *reinterpret_cast<float4*>(static_cast<float*>(p.out) + at) = make_float4(y[0], y[1], y[2], y[3]);
      } else {
        alignas(16) T rounded[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) put(rounded + j, y[j]);
        *reinterpret_cast<Q*>(static_cast<T*>(p.out) + at) = *reinterpret_cast<Q*>(rounded);
      }
    });
  }

  // The backward pass: sequence_gradients.cuh.
  __device__ void write_gradients(int tile, const GradientTile<M>& tile_sums, const Stage<M, kBackward>& stage);
  __device__ void write_block_gradients(int tile, const GradientTile<M>& sums, const Stage<M, kBackward>&);

  __device__ void finish() { parameter_sums.write(p, w, t); }
};

}  // namespace swin_umamba
