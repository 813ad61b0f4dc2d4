// Loads the 1-D scan in mamba-ssm's layout, steps contiguous: rows of u, delta, Bs and Cs, all of one
// dtype, are copied as they are, in pieces of four steps, and transposed on their way to the scan.
#pragma once

#include "gradient_tile.cuh"
#include "mapping.cuh"
#include "math.cuh"
#include "matrix.cuh"
#include "parameter_sums.cuh"
#include "state_sums.cuh"

namespace swin_umamba {

// Four values, which one copy moves.
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
  static constexpr int kRow = kTile + 4;                // of T: rows start in other banks
  // Tiles of u: as in image.cuh. Those of delta, Bs and Cs are read while staging only.
  static constexpr int kXTiles = kBackward ? 1 : kCarry ? 2 : 4, kTiles = kBackward ? 1 : 2;
  static constexpr int kXItem = kCarry ? 4 : sizeof(T);  // dout may be of float32
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
  char* us;      // (kXTiles, channels, kRow) of T, or of dout's type; backwards du takes its place
  T* all_delta;  // (kTiles, channels, kRow); backwards ddelta takes its place
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

  __device__ void begin() {
    for (int i = t.thread(); i < M::kChannels; i += M::kThreads) {
      const bool valid = w.channel + i < w.channel_end;
      bias[i] = valid && p.bias ? p.bias[w.channel + i] : 0.0f;
    }
    load(w.tile<kReverse>(0));
  }

  // kRows rows of a tile, of which `valid` exist; `stride` values lie between two.
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

  // Delta and u (or dout), a lane a step, two channels at a time.
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

  // Calls f(channel of the warp, first of four steps) for what this lane writes of a tile: four lanes
  // side by side along a row.
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

  // du and ddelta, and what they add to the gradients of D and delta_bias: all of this warp alone.
  __device__ void write_gradients(int tile, const GradientTile<M>& tile_sums,
                                  const Stage<M, kBackward>& stage) {
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
          if (step >= count) d0 = d1 = 0.0f;  // the sums of steps that were not walked are anything
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
  __device__ void write_block_gradients(int tile, const GradientTile<M>& sums, const Stage<M, kBackward>&) {
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

  __device__ void finish() { parameter_sums.write(p, w, t); }
};

}  // namespace swin_umamba
