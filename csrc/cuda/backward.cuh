// The backward scan. With g the adjoint of h after a step, a = exp(dt A) and u = dt x Bs:
//   dCs = dy h    dBs = g dt x    d(dt x) = g Bs    q = (a g) h_before    ddt = A q    dA = dt q
// and a g is carried to the step before. States are recomputed from the tile's checkpoint: once to get
// those before each group of kRecompute steps, then group by group into registers, last group first.
#pragma once

#include "forward.cuh"
#include "gradient_tile.cuh"
#include "segments.cuh"
#include "mapping.cuh"
#include "math.cuh"
#include "state_sums.cuh"

namespace swin_umamba {

// A lane's own states in shared memory: vectors side by side over the lanes.
template <class M>
__device__ inline void save_own(float* slot, int lane, const float (&v)[M::P][M::S]) {
  constexpr int kVector = M::S >= 4 ? 4 : 1;
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
#pragma unroll
    for (int s = 0; s < M::S; s += kVector) {
      float part[kVector];
#pragma unroll
      for (int j = 0; j < kVector; ++j) part[j] = v[c][s + j];
      store_vector(slot + (c * M::S + s) * 32 + lane * kVector, part);
    }
  }
}

template <class M>
__device__ inline void load_own(const float* slot, int lane, float (&v)[M::P][M::S]) {
  constexpr int kVector = M::S >= 4 ? 4 : 1;
#pragma unroll
  for (int c = 0; c < M::P; ++c) {
#pragma unroll
    for (int s = 0; s < M::S; s += kVector) {
      float part[kVector];
      load_vector(slot + (c * M::S + s) * 32 + lane * kVector, part);
#pragma unroll
      for (int j = 0; j < kVector; ++j) v[c][s + j] = part[j];
    }
  }
}

// What recomputing a group's states needs of the staged tile.
template <class M>
struct RecomputeRows {
  float pairs[kRecompute][2 * M::P], Bs[kRecompute][M::S];

  __device__ void load(const float* own_steps, const float* own_bc, int group) {
#pragma unroll
    for (int i = 0; i < kRecompute; ++i) {
      const int step = group * kRecompute + i;
      load_vector(own_steps + step * Stage<M, true>::kRow, pairs[i]);
      load_vector(own_bc + step * 2 * M::N, Bs[i]);
    }
  }
};

template <class Loader>
__global__ void __launch_bounds__(Loader::M::kThreads, Loader::M::kBackwardBlocks)
    backward_kernel(const __grid_constant__ typename Loader::Params p) {
  using M = typename Loader::M;
  using Tile = GradientTile<M>;
  using StateSums = StateSumsFor<M, Loader::k16Bit>;      // dBs and dCs, over channels
  using ChannelSum = LaneSum<2 * M::P, M::LS, M::LC>;    // decay and dt * x by channel, over states

  extern __shared__ __align__(16) char shared[];
  float* base = reinterpret_cast<float*>(shared);
  float* all_sums = base + Stage<M, true>::kFloats;
  const Segment segment = Segment::take(p);
  Block w = Block::of<M>(p, segment.range(), p.splits, 0);
  segment.cut<true>(w);
  const Lane<M> t = Lane<M>::by_state(w);
  const auto stage = Stage<M, true>::at(base, t);
  const float *bc = stage.bc, *steps = stage.steps;
  const Tile sums{all_sums + t.warp * Tile::kFloats};
  Loader loader(p, w, t, reinterpret_cast<char*>(all_sums + M::kWarps * Tile::kFloats));

  float A2[M::P][M::S], carry[M::P][M::S] = {}, dA[M::P][M::S] = {};
  load_decay<M>(p, w, t, A2);
  const int64_t sequence = static_cast<int64_t>(w.b) * p.K + w.k;
  loader.begin(base);
  if (segment.first()) {
    if (p.dlast) load_states<M>(p, w, t, p.dlast + sequence * p.D * p.N, carry);
    fold_splits<M>(p, w, t, A2, carry, true);
  } else {
    segment.receive_carry<M>(w, t, carry);
  }

  // Where this lane stores its sums within those of a group's first step.
  const int channel_at = 2 * t.group * M::P + ChannelSum::first(t.lane);
  StateSums state_sums(t);

  for (int tile = w.last_tile - 1; tile >= w.first_tile; --tile) {
    float h[M::P][M::S];
    load_states<M>(p, w, t, p.states + (sequence * w.tiles + tile) * p.D * p.N, h);
    const auto prefetched = loader.prefetch(tile);
    loader.wait();
    __syncthreads();
    loader.prepare(tile, prefetched, stage);
    __syncthreads();
    const int groups = (w.steps(tile) + kRecompute - 1) / kRecompute;

    save_own<M>(sums.slot(0), t.lane, h);
    const float* own_steps = steps + 2 * t.group * M::P;
    RecomputeRows<M> rows;
    rows.load(own_steps, bc + t.state, 0);
#pragma unroll 1
    for (int group = 1; group < groups; ++group) {
      const RecomputeRows<M> now = rows;
      rows.load(own_steps, bc + t.state, group);  // ahead of the states' store
#pragma unroll
      for (int i = 0; i < kRecompute; ++i) advance<M>(h, A2, now.pairs[i], now.Bs[i]);
      save_own<M>(sums.slot(group), t.lane, h);
    }

#pragma unroll 1
    for (int group = groups - 1; group >= 0; --group) {
      // States before the group and after each of its steps, and the decays between them.
      float hs[kRecompute + 1][M::P][M::S], a[kRecompute][M::P][M::S];
      float* slot = sums.slot(group);
      const float* pair = steps + group * kRecompute * stage.kRow + 2 * t.group * M::P;
      const float* b = bc + group * kRecompute * 2 * M::N + t.state;
      const float* dy_at = loader.dy_row(group * kRecompute) + t.group * M::P;
      load_own<M>(slot, t.lane, hs[0]);
#pragma unroll
      for (int i = 0; i < kRecompute; ++i) {
        float pairs[2 * M::P], Bs[M::S];
        load_vector(pair + i * stage.kRow, pairs);
        load_vector(b + i * 2 * M::N, Bs);
#pragma unroll
        for (int c = 0; c < M::P; ++c) {
#pragma unroll
          for (int s = 0; s < M::S; ++s) {
            a[i][c][s] = exp2_fast(pairs[2 * c] * A2[c][s]);
            hs[i + 1][c][s] = fmaf(a[i][c][s], hs[i][c][s], pairs[2 * c + 1] * Bs[s]);
          }
        }
      }
      // The sums of kTogether steps are stored together, so that stores do not delay the next step's loads,
      // and the shuffles of one step overlap the products of another. All four together would spill.
      float channel_sums[kTogether][ChannelSum::kHeld];
#pragma unroll
      for (int i = kRecompute - 1; i >= 0; --i) {
        float pairs[2 * M::P], Bs[M::S], Cs[M::S], dy[M::P], g[M::P][M::S];
        load_vector(pair + i * stage.kRow, pairs);
        load_vector(b + i * 2 * M::N, Bs);
        load_vector(b + i * 2 * M::N + M::N, Cs);
        load_vector(dy_at + i * Loader::kDyRow, dy);
        float by_channel[2 * M::P] = {};
#pragma unroll
        for (int c = 0; c < M::P; ++c) {
#pragma unroll
          for (int s = 0; s < M::S; ++s) {
            g[c][s] = fmaf(dy[c], Cs[s], carry[c][s]);
            carry[c][s] = a[i][c][s] * g[c][s];
            const float q = carry[c][s] * hs[i][c][s];
            by_channel[2 * c] = fmaf(A2[c][s], q, by_channel[2 * c]);
            by_channel[2 * c + 1] = fmaf(g[c][s], Bs[s], by_channel[2 * c + 1]);
            dA[c][s] = fmaf(pairs[2 * c], q, dA[c][s]);
          }
        }
        state_sums.add(i, g, hs[i + 1], pairs, dy);
        ChannelSum::run(by_channel, t.lane);
#pragma unroll
        for (int v = 0; v < ChannelSum::kHeld; ++v) channel_sums[i % kTogether][v] = by_channel[v];
        if (i % kTogether != 0) continue;
        // Every lane has loaded its states: the group's sums overwrite them.
        if (i + kTogether == kRecompute) __syncwarp();
        if (ChannelSum::owner(t.lane)) {
#pragma unroll
          for (int j = 0; j < kTogether; ++j) {
#pragma unroll
            for (int v = 0; v < ChannelSum::kHeld; ++v) {
              Tile::channels(slot, i + j)[channel_at + v] = channel_sums[j][v];
            }
          }
        }
        state_sums.store(slot, i);
      }
    }

    __syncwarp();
    loader.write_gradients(tile, sums, stage);
    __syncthreads();
    loader.load(tile - 1);
    loader.write_block_gradients(tile, Tile{all_sums}, stage);
  }

  segment.hand_off_carry<M>(w, t, carry);
  if (p.a_is_log) {  // d log(-A) = dA A
#pragma unroll
    for (int c = 0; c < M::P; ++c) {
#pragma unroll
      for (int s = 0; s < M::S; ++s) dA[c][s] *= A2[c][s] * kLn2;
    }
  }
  add_states<M>(p, w, t, p.dA + (w.sum_row(p) * p.K + w.k) * p.D * p.N, dA);
  loader.finish();
}

}  // namespace swin_umamba
