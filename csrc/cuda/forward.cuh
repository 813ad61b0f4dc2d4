// The scan forwards. kFull: y and, where wanted, the states entering each tile. Otherwise only what
// a split adds to a zero state, so that all splits can then start side by side.
#pragma once

#include "mapping.cuh"
#include "math.cuh"

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

// Folds the splits that lie before this one (or, backwards, behind it) into the state `v` that
// enters it: v <- exp(A sum dt) v + what the split adds.
template <class M>
__device__ inline void fold_splits(const ScanParams& p, const Block& w, const Lane<M>& t,
                                   const float (&A2)[M::P][M::S], float (&v)[M::P][M::S],
                                   bool backward) {
  const int count = backward ? p.splits - 1 - w.split : w.split;
  for (int i = 0; i < count; ++i) {
    const int split = backward ? p.splits - 1 - i : i;
    const int64_t row = (static_cast<int64_t>(w.b) * p.K + w.k) * p.splits + split;
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

template <class M>
__device__ inline void save_split(const ScanParams& p, const Block& w, const Lane<M>& t,
                                  const float (&v)[M::P][M::S], const float (&sum_dt)[M::P]) {
  const int64_t row = (static_cast<int64_t>(w.b) * p.K + w.k) * p.splits + w.split;
  save_states<M>(p, w, t, p.split_state + row * p.D * p.N, v);
  if (t.state != 0) return;
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
    if (t.channel + c < w.channel_end) p.split_dt[row * p.D + t.channel + c] = sum_dt[c];
  }
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

template <class Source, bool kFull>
__global__ void __launch_bounds__(Source::M::kThreads, Source::M::kForwardBlocks)
    forward_kernel(const __grid_constant__ ScanParams p) {
  using M = typename Source::M;
  constexpr int kTogether = 4;  // steps whose sums over states are made, and stored, together
  using Sum = LaneSum<kTogether * M::P, M::LS, 1>;

  extern __shared__ __align__(16) char shared[];
  float* bc = reinterpret_cast<float*>(shared);
  float* all_steps = bc + kTile * 2 * M::N;
  const Block w = Block::of<M>(p);
  const Lane<M> t = Lane<M>::of(w);
  float* steps = all_steps + t.warp * kTile * M::kRow;
  Source source(p, w, t, bc, steps,
                reinterpret_cast<char*>(all_steps + M::kWarps * kTile * M::kRow));

  float A2[M::P][M::S], h[M::P][M::S] = {}, sum_dt[M::P] = {};
  load_decay<M>(p, w, t, A2);
  if constexpr (kFull) fold_splits<M>(p, w, t, A2, h, false);
  source.begin();

  for (int tile = w.first_tile; tile < w.last_tile; ++tile) {
    const auto ahead = source.ahead();
    source.wait();
    __syncthreads();
    source.prepare(tile, ahead);
    __syncthreads();
    source.load_ahead(tile + 1);
    if constexpr (kFull) {
      if (p.states) {
        const int64_t row = (static_cast<int64_t>(w.b) * p.K + w.k) * w.tiles + tile;
        save_states<M>(p, w, t, p.states + row * p.D * p.N, h);
      }
    }
    const int count = w.steps(tile);  // a step past the end has dt = 0 and changes nothing
#pragma unroll 1
    for (int first = 0; first < count; first += kTogether) {
      float y[kTogether * M::P];
#pragma unroll
      for (int u = 0; u < kTogether; ++u) {
        float pairs[2 * M::P], Bs[M::S];
        load_vector(steps + (first + u) * M::kRow + 2 * t.group * M::P, pairs);
        load_vector(bc + (first + u) * 2 * M::N + t.state, Bs);
        advance<M>(h, A2, pairs, Bs);
        if constexpr (kFull) {
          float Cs[M::S];
          load_vector(bc + (first + u) * 2 * M::N + M::N + t.state, Cs);
#pragma unroll
          for (int c = 0; c < M::P; ++c) {
            float sum = Cs[0] * h[c][0];
#pragma unroll
            for (int s = 1; s < M::S; ++s) sum = fmaf(Cs[s], h[c][s], sum);
            y[u * M::P + c] = sum;
          }
        } else {
#pragma unroll
          for (int c = 0; c < M::P; ++c) sum_dt[c] += pairs[2 * c];
        }
      }
      if constexpr (kFull) {
        Sum::run(y, t.lane);
        __syncwarp();  // every lane has read its dt, whose place y takes
        if (Sum::owner(t.lane)) {
#pragma unroll
          for (int i = 0; i < Sum::kHeld; ++i) {
            const int j = Sum::first(t.lane) + i;
            steps[(first + j / M::P) * M::kRow + 2 * (t.group * M::P + j % M::P)] = y[i];
          }
        }
      }
    }
    if constexpr (kFull) {
      __syncwarp();
      source.write_outputs(tile);
    }
  }

  if constexpr (kFull) {
    if (p.last_state && w.split == p.splits - 1) {
      const int64_t row = static_cast<int64_t>(w.b) * p.K + w.k;
      save_states<M>(p, w, t, p.last_state + row * p.D * p.N, h);
    }
  } else {
    save_split<M>(p, w, t, h, sum_dt);
  }
}

}  // namespace swin_umamba
