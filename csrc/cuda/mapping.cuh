// How channels and states map to the lanes of a warp, and which part of the work a block has.
#pragma once

#include <cstdint>

#include "math.cuh"
#include "params.h"

namespace swin_umamba {

constexpr int kRecompute = 4;  // steps whose states the backward pass recomputes into registers at a time

// N states (padded up to N); P channels per thread, S states each: with both above one, a staged value
// serves several products and sums over channels start in registers.
template <int N_>
struct Mapping {
  static constexpr int N = N_;
  static constexpr int S = N >= 64 ? 8 : (N >= 4 ? 4 : 1);  // states per thread
  static constexpr int LS = N / S;                          // lanes that share a channel
  static constexpr int P = LS == 1 ? 1 : 2;                 // channels per thread
  static constexpr int LC = 32 / LS;                        // lanes that share a state
  static constexpr int WC = LC * P;                         // channels per warp
  static constexpr int kWarps = N > 64 ? 1 : 4;             // more at N = 256 would exceed shared memory
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kStages = N > 64 ? 1 : 2;            // as would a second tile between staging and scan
  // Blocks that a multiprocessor's registers must allow, as measured: docs/kernels.md.
  static constexpr int kForwardBlocks = N == 16 ? 3 : 1, kBackwardBlocks = N == 16 ? 3 : 1;
  static constexpr int kChannels = kWarps * WC;  // channels per block
  // Floats of one step: (dt, dt * x), or (dt, dy), by channel, padded against bank conflicts.
  static constexpr int kForwardRow = 2 * WC + 8, kBackwardRow = 2 * WC + 4;
};

// Whether a warp's values of one step, 16 channels by 16 states, are laid out over its lanes as two
// fragments of a matrix instruction.
template <class M>
constexpr bool kLanesAreFragments = M::P == 2 && M::S == 4 && M::LS == 4;

__host__ __device__ constexpr int ceil_div(int64_t a, int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

// A block stays inside one group, whose channels share Bs and Cs.
template <class M>
__host__ __device__ inline int channel_blocks(const ScanParams& p) {
  return p.G * ceil_div(p.D / p.G, M::kChannels);
}

// What a walk along a sequence is for: the forward pass, the carries of the backward pass's splits, and the
// backward pass. The latter two begin at the end.
enum class Walk { kForward, kCarry, kBackward };

// Position in the image of step l of direction k: row-major, column-major, and both backwards.
__device__ inline int position(const ScanParams& p, int k, int l) {
  const int forward = (k & 2) ? p.H * p.W - 1 - l : l;
  return (k & 1) ? forward % p.H * p.W + forward / p.H : forward;
}

// The same value, opaque to the compiler: what is derived from it is then recomputed, not kept in
// registers across the scan.
__device__ inline int recompute(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// What one block works on.
struct Block {
  int b, k, group, split;
  int channel, channel_end;     // [channel, channel_end) of D; the end may be past this block
  int first_tile, last_tile;    // [first_tile, last_tile)
  int tiles, length;

  // The i-th of B * directions * blocks * splits: `splits` of those of p, from first_split on.
  template <class M>
  static __device__ Block of(const ScanParams& p, int i, int splits, int first_split) {
    Block w;
    const int block = p.first_block + i % p.blocks;
    i /= p.blocks;
    w.split = first_split + i % splits;
    i /= splits;
    w.k = p.first_direction + i % p.directions;
    w.b = i / p.directions;
    const int group_channels = p.D / p.G;
    const int per_group = ceil_div(group_channels, M::kChannels);
    w.group = block / per_group;
    w.channel = w.group * group_channels + (block % per_group) * M::kChannels;
    w.channel_end = (w.group + 1) * group_channels;
    w.length = p.H * p.W;
    w.tiles = ceil_div(w.length, kTile);
    w.first_tile = w.split * p.tiles_per_split;
    w.last_tile = min(w.tiles, w.first_tile + p.tiles_per_split);
    return w;
  }
  // The i-th tile in walking order.
  template <bool kReverse>
  __device__ int tile(int i) const { return kReverse ? last_tile - 1 - i : first_tile + i; }
  // Position in the image of this lane's step of a tile; 0 past the end.
  __device__ int lane_position(const ScanParams& p, int tile) const {
    const int l = tile * kTile + static_cast<int>(threadIdx.x % 32);
    return l < length ? position(p, k, l) : 0;
  }
  // Steps of a tile that exist.
  __device__ int steps(int tile) const { return min(kTile, length - tile * kTile); }
  // Row of a split of this sequence in an array of (B, K, splits, ..).
  __device__ int64_t split_row(const ScanParams& p, int split) const {
    return (static_cast<int64_t>(b) * p.K + k) * p.splits + split;
  }
  // Row of the parameters' gradients that this block adds to.
  __device__ int64_t sum_row(const ScanParams& p) const {
    return static_cast<uint32_t>(b * p.splits + split) % static_cast<uint32_t>(p.sum_rows);
  }
};

// What one thread works on: its states and channels inside the warp's.
template <class M>
struct Lane {
  int warp, lane, state, group;  // first state; which of the warp's channel groups
  int channel;                   // of D: the first of its P channels

  // Lanes that share a channel are adjacent, for sums over states.
  static __device__ Lane by_channel(const Block& w) {
    const int lane = threadIdx.x % 32;
    return at(w, lane / M::LS, lane % M::LS);
  }
  // Lanes that share a state are adjacent, for sums over channels.
  static __device__ Lane by_state(const Block& w) {
    const int lane = threadIdx.x % 32;
    return at(w, lane % M::LC, lane / M::LC);
  }
  static __device__ Lane at(const Block& w, int group, int states) {
    Lane t;
    t.warp = threadIdx.x / 32 % M::kWarps;
    t.lane = threadIdx.x % 32;
    t.state = states * M::S;
    t.group = group;
    t.channel = w.channel + t.warp * M::WC + group * M::P;
    return t;
  }

  __device__ int thread() const { return warp * 32 + lane; }

  // What is derived from the result (the many addresses of a tile's staging) is recomputed where it is used.
  __device__ Lane recompute() const {
    Lane t = *this;
    t.warp = swin_umamba::recompute(t.warp);
    t.lane = swin_umamba::recompute(t.lane);
    return t;
  }
};

// The staged values of one tile: Bs and Cs of the block, (dt, dt * x) or (dt, dy) of the warps, overwritten
// by y by channel when the tile has been scanned.
template <class M, bool kBackward>
struct Stage {
  static constexpr int kRow = kBackward ? M::kBackwardRow : M::kForwardRow;
  static constexpr int kBcFloats = kTile * 2 * M::N, kStepFloats = M::kWarps * kTile * kRow;
  static constexpr int kFloats = kBcFloats + kStepFloats;
  float* bc;     // (kTile, 2N)
  float* steps;  // (kTile, kRow) of this thread's warp

  static __device__ Stage at(float* base, const Lane<M>& t) {
    return {base, base + kBcFloats + t.warp * kTile * kRow};
  }
};

// This thread's states in an array of (.., D, N) whose first row is `base`; zeros past the block's
// last channel and past N.
template <class M>
__device__ inline void load_states(const ScanParams& p, const Block& w, const Lane<M>& t,
                                   const float* base, float (&v)[M::P][M::S]) {
  const float* own = base + static_cast<int64_t>(t.channel) * p.N + t.state;
  if (p.N == M::N && t.channel + M::P <= w.channel_end) {
#pragma unroll
    for (int c = 0; c < M::P; ++c) load_vector(own + c * M::N, v[c]);
    return;
  }
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
    const bool valid = t.channel + c < w.channel_end;
#pragma unroll
    for (int s = 0; s < M::S; ++s) v[c][s] = valid && t.state + s < p.N ? own[c * p.N + s] : 0.0f;
  }
}

template <class M>
__device__ inline void save_states(const ScanParams& p, const Block& w, const Lane<M>& t, float* base,
                                   const float (&v)[M::P][M::S]) {
  float* own = base + static_cast<int64_t>(t.channel) * p.N + t.state;
  if (p.N == M::N && t.channel + M::P <= w.channel_end) {
#pragma unroll
    for (int c = 0; c < M::P; ++c) store_vector(own + c * M::N, v[c]);
    return;
  }
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
#pragma unroll
    for (int s = 0; s < M::S; ++s) {
      if (t.channel + c < w.channel_end && t.state + s < p.N) own[c * p.N + s] = v[c][s];
    }
  }
}

// The same, added to rows of sums.
template <class M>
__device__ inline void add_states(const ScanParams& p, const Block& w, const Lane<M>& t, float* base,
                                  const float (&v)[M::P][M::S]) {
  float* own = base + static_cast<int64_t>(t.channel) * p.N + t.state;
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
#pragma unroll
    for (int s = 0; s < M::S; ++s) {
      if (t.channel + c < w.channel_end && t.state + s < p.N) add_to(own + c * p.N + s, kSumScale * v[c][s]);
    }
  }
}

}  // namespace swin_umamba
