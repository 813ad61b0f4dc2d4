// The forward scan. kFull: y and, where wanted, the state entering each tile (the checkpoints of the
// backward pass). Otherwise only what a split adds to a zero state, so that all splits can then run in
// parallel; or, from the end, what it adds to a zero adjoint.
#pragma once

#include "barrier.cuh"
#include "segments.cuh"
#include "mapping.cuh"
#include "math.cuh"
#include "output_sums.cuh"

namespace swin_umamba {

template <class M>
__device__ inline void load_decay(const ScanParams& p, const Block& w, const Lane<M>& t,
                                  float (&A2)[M::P][M::S]) {
  load_states<M>(p, w, t, p.A + static_cast<int64_t>(w.k) * p.D * p.N, A2);
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
#pragma unroll
    for (int s = 0; s < M::S; ++s) A2[c][s] = (p.a_is_log ? -expf(A2[c][s]) : A2[c][s]) * kLog2e;
  }
}

// Folds the splits before this one (or, backwards, after it) into the state `v` that enters it:
// v <- exp(A sum dt) v + what the split adds.
template <class M>
__device__ inline void fold_splits(const ScanParams& p, const Block& w, const Lane<M>& t,
                                   const float (&A2)[M::P][M::S], float (&v)[M::P][M::S],
                                   bool backward) {
  const int count = backward ? p.splits - 1 - w.split : w.split;
  for (int i = 0; i < count; ++i) {
    const int split = backward ? p.splits - 1 - i : i;
    const int64_t row = w.split_row(p, split);
    float added[M::P][M::S];
    load_states<M>(p, w, t, p.split_state + row * p.D * p.N, added);
#pragma unroll
    for (int c = 0; c < M::P; ++c) {
      if (t.channel + c >= w.channel_end) continue;
      const float dt = p.split_dt[row * p.D + t.channel + c];
#pragma unroll
      for (int s = 0; s < M::S; ++s) v[c][s] = fmaf(exp2_fast(A2[c][s] * dt), v[c][s], added[c][s]);
    }
  }
}

// What a split adds to a zero state, and its sum of dt, after the segments before this one.
template <class M>
__device__ inline void load_split(const ScanParams& p, const Block& w, const Segment& segment, const Lane<M>& t,
                                  float (&v)[M::P][M::S], float (&sum_dt)[M::P]) {
  if (segment.first()) return;
  segment.wait<M>(t);
  const int64_t row = w.split_row(p, w.split);
  load_states<M>(p, w, t, p.split_state + row * p.D * p.N, v);
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
    if (t.channel + c < w.channel_end) sum_dt[c] = p.split_dt[row * p.D + t.channel + c];
  }
}

template <class M>
__device__ inline void save_split(const ScanParams& p, const Block& w, const Segment& segment, const Lane<M>& t,
                                  const float (&v)[M::P][M::S], const float (&sum_dt)[M::P]) {
  const int64_t row = w.split_row(p, w.split);
  save_states<M>(p, w, t, p.split_state + row * p.D * p.N, v);
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
    if (t.state == 0 && t.channel + c < w.channel_end) p.split_dt[row * p.D + t.channel + c] = sum_dt[c];
  }
  segment.release<M>(t);
}

// One step of the recurrence for this thread's channels and states; `pairs` is (dt, dt * x).
template <class M>
__device__ inline void advance(float (&h)[M::P][M::S], const float (&A2)[M::P][M::S],
                               const float (&pairs)[2 * M::P], const float (&Bs)[M::S]) {
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
#pragma unroll
    for (int s = 0; s < M::S; ++s) {
      h[c][s] = fmaf(exp2_fast(pairs[2 * c] * A2[c][s]), h[c][s], pairs[2 * c + 1] * Bs[s]);
    }
  }
}

// The same for the adjoint, which goes from a step to the one before it; `pairs` is (dt, dy).
template <class M>
__device__ inline void retreat(float (&carry)[M::P][M::S], const float (&A2)[M::P][M::S],
                               const float (&pairs)[2 * M::P], const float (&Cs)[M::S]) {
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
#pragma unroll
    for (int s = 0; s < M::S; ++s) {
      carry[c][s] = exp2_fast(pairs[2 * c] * A2[c][s]) * fmaf(pairs[2 * c + 1], Cs[s], carry[c][s]);
    }
  }
}

// Half of a block's warps stage tiles, the other half scan them. Up to two tiles are staged ahead, so
// that the scan does not wait for the latency of staging.
enum ForwardBarrier { kStagers = 1, kStaged = 2, kScanned = 4 };  // one of the latter two for each stage

template <class Loader, bool kFull>
__device__ inline void stage_tiles(const typename Loader::Params& p, const Block& w,
                                   const Lane<typename Loader::M>& t, float* stages, char* own) {
  using M = typename Loader::M;
  using S = Stage<M, false>;
  constexpr bool kReverse = Loader::kReverse;
  Loader loader(p, w, t, own);
  const auto stage_of = [&](int i) { return S::at(stages + i % M::kStages * S::kFloats, t); };
  // Once the i-th tile has been scanned.
  const auto finish = [&](int i) {
    barrier_sync<kScanned, 2 * M::kThreads>(i % M::kStages);
    if constexpr (kFull) loader.write_outputs(w.tile<kReverse>(i), stage_of(i));
  };
  loader.begin(nullptr);
  const int tiles = w.last_tile - w.first_tile;
  for (int i = 0; i < tiles; ++i) {
    const int tile = w.tile<kReverse>(i);
    const auto prefetched = loader.prefetch(tile);
    loader.wait();
    barrier_sync<kStagers, M::kThreads>();
    loader.load(w.tile<kReverse>(i + 1));
    if (i >= M::kStages) finish(i - M::kStages);
    loader.prepare(tile, prefetched, stage_of(i));
    barrier_arrive<kStaged, 2 * M::kThreads>(i % M::kStages);
  }
  for (int i = max(0, tiles - M::kStages); i < tiles; ++i) finish(i);
}

// What the steps of a split add to a zero state, or from the end to a zero adjoint.
template <class Loader>
__device__ inline void sum_tiles(const ScanParams& p, const Block& w, const Segment& segment,
                                 const Lane<typename Loader::M>& t, float* stages) {
  using M = typename Loader::M;
  using S = Stage<M, false>;
  constexpr int kAtOnce = 4;
  static_assert(kTile % kAtOnce == 0);
  constexpr bool kReverse = Loader::kReverse;

  float A2[M::P][M::S], v[M::P][M::S] = {}, sum_dt[M::P] = {};
  load_decay<M>(p, w, t, A2);
  load_split<M>(p, w, segment, t, v, sum_dt);

  for (int i = 0; i < w.last_tile - w.first_tile; ++i) {
    const S stage = S::at(stages + i % M::kStages * S::kFloats, t);
    barrier_sync<kStaged, 2 * M::kThreads>(i % M::kStages);
    // A step past the end has dt = 0 and dy = 0 and changes nothing.
    const int groups = (w.steps(w.tile<kReverse>(i)) + kAtOnce - 1) / kAtOnce;
#pragma unroll 1
    for (int j = 0; j < groups; ++j) {
      const int first = (kReverse ? groups - 1 - j : j) * kAtOnce;
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const int step = first + (kReverse ? kAtOnce - 1 - u : u);
        float pairs[2 * M::P], map[M::S];
        load_vector(stage.steps + step * S::kRow + 2 * t.group * M::P, pairs);
        load_vector(stage.bc + step * 2 * M::N + (kReverse ? M::N : 0) + t.state, map);
        if constexpr (kReverse) {
          retreat<M>(v, A2, pairs, map);
        } else {
          advance<M>(v, A2, pairs, map);
        }
#pragma unroll
        for (int c = 0; c < M::P; ++c) sum_dt[c] += pairs[2 * c];
      }
    }
    barrier_arrive<kScanned, 2 * M::kThreads>(i % M::kStages);
  }
  save_split<M>(p, w, segment, t, v, sum_dt);
}

template <class Loader>
__device__ inline void scan_tiles(const ScanParams& p, const Block& w, const Segment& segment,
                                  const Lane<typename Loader::M>& t, float* stages) {
  using M = typename Loader::M;
  using Sums = OutputSumsFor<M, Loader::k16Bit>;
  constexpr int kTogether = Sums::kTogether;
  using S = Stage<M, false>;

  float A2[M::P][M::S], h[M::P][M::S] = {};
  load_decay<M>(p, w, t, A2);
  if (segment.first()) {
    fold_splits<M>(p, w, t, A2, h, false);
  } else {
    segment.receive_carry<M>(w, t, h);
  }

  for (int tile = w.first_tile; tile < w.last_tile; ++tile) {
    const int parity = (tile - w.first_tile) % M::kStages;
    const S stage = S::at(stages + parity * S::kFloats, t);
    barrier_sync<kStaged, 2 * M::kThreads>(parity);
    if (p.states) {
      // Recomputed for each tile: kept across the scan it would spill registers.
      const int64_t row = (static_cast<int64_t>(recompute(w.b)) * p.K + w.k) * w.tiles + tile;
      save_states<M>(p, w, t, p.states + row * p.D * p.N, h);
    }
    const int count = w.steps(tile);  // a step past the end has dt = 0 and changes nothing
    // Sums are stored after the next steps' first loads are issued: before them they would delay them.
    Sums sums;
    float* row = stage.steps;
#pragma unroll 1
    for (int first = 0; first < count; first += kTogether, row += kTogether * S::kRow) {
      const float* bc = stage.bc + first * 2 * M::N + t.state;
      const Sums late = sums;
#pragma unroll
      for (int u = 0; u < kTogether; ++u) {
        float pairs[2 * M::P], Bs[M::S], Cs[M::S];
        load_vector(row + u * S::kRow + 2 * t.group * M::P, pairs);
        load_vector(bc + u * 2 * M::N, Bs);
        load_vector(bc + u * 2 * M::N + M::N, Cs);
        if (u == 0) {
          __syncwarp();  // every lane has read its dt of the steps before, which y overwrites
          if (first > 0) late.store(row - kTogether * S::kRow + t.group * M::P, S::kRow, t.lane);
        }
        advance<M>(h, A2, pairs, Bs);
        sums.add(u, h, Cs, t.lane);
      }
      sums.reduce(t.lane);
    }
    __syncwarp();
    sums.store(row - kTogether * S::kRow + t.group * M::P, S::kRow, t.lane);
    barrier_arrive<kScanned, 2 * M::kThreads>(parity);
  }

  segment.hand_off_carry<M>(w, t, h);
  if (p.last_state && w.last_tile == w.tiles) {
    const int64_t row = static_cast<int64_t>(w.b) * p.K + w.k;
    save_states<M>(p, w, t, p.last_state + row * p.D * p.N, h);
  }
}

template <class Loader, bool kFull>
__global__ void __launch_bounds__(2 * Loader::M::kThreads, Loader::M::kForwardBlocks)
    forward_kernel(const __grid_constant__ typename Loader::Params p) {
  using M = typename Loader::M;
  extern __shared__ __align__(16) char shared[];
  float* stages = reinterpret_cast<float*>(shared);
  const Segment segment = Segment::take(p);
  // No split needs what the last one adds (from the end: the first one).
  Block w = Block::of<M>(p, segment.range(), kFull ? p.splits : p.splits - 1, Loader::kReverse ? 1 : 0);
  segment.cut<Loader::kReverse>(w);
  const Lane<M> t = Lane<M>::by_channel(w);
  if (threadIdx.x >= M::kThreads) {
    stage_tiles<Loader, kFull>(p, w, t, stages,
                               reinterpret_cast<char*>(stages + M::kStages * Stage<M, false>::kFloats));
  } else if constexpr (kFull) {
    scan_tiles<Loader>(p, w, segment, t, stages);
  } else {
    sum_tiles<Loader>(p, w, segment, t, stages);
  }
}

}  // namespace swin_umamba
