// The scan backwards. With g the adjoint of h after a step, a = exp(dt A) and u = dt x Bs:
//   dCs = dy h    dBs = g dt x    d(dt x) = g Bs    q = (a g) h_before    ddt = A q    dA = dt q
// and a g goes on to the step before. States are rebuilt from the one saved for the tile: once to
// find those at the start of each segment, then segment by segment into registers, walked backwards.
#pragma once

#include "forward.cuh"
#include "gradient_tile.cuh"
#include "legs.cuh"
#include "mapping.cuh"
#include "math.cuh"
#include "state_sums.cuh"

namespace swin_umamba {

// A lane's states, kept in shared memory for itself alone: vectors side by side over the lanes.
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

// What a segment's steps need of the staged tile to find their states.
template <class M>
struct SegmentRows {
  float pairs[kSegment][2 * M::P], Bs[kSegment][M::S];

  __device__ void load(const float* own_steps, const float* own_bc, int segment) {
#pragma unroll
    for (int i = 0; i < kSegment; ++i) {
      const int step = segment * kSegment + i;
      load_vector(own_steps + step * Stage<M, true>::kRow, pairs[i]);
      load_vector(own_bc + step * 2 * M::N, Bs[i]);
    }
  }
};

template <class Source>
__global__ void __launch_bounds__(Source::M::kThreads, Source::M::kBackwardBlocks)
    backward_kernel(const __grid_constant__ ScanParams p) {
  using M = typename Source::M;
  using Tile = GradientTile<M>;
  using StateSums = StateSumsFor<M, Source::kHalf>;      // dBs and dCs, over channels
  using ChannelSum = LaneSum<2 * M::P, M::LS, M::LC>;    // decay and dt * x by channel, over states

  extern __shared__ __align__(16) char shared[];
  float* base = reinterpret_cast<float*>(shared);
  float* all_sums = base + Stage<M, true>::kFloats;
  const Leg leg = Leg::take(p);
  Block w = Block::of<M>(p, leg.range(), p.splits, 0);
  leg.cut<true>(w);
  const Lane<M> t = Lane<M>::by_state(w);
  const auto stage = Stage<M, true>::at(base, t);
  const float *bc = stage.bc, *steps = stage.steps;
  const Tile sums{all_sums + t.warp * Tile::kFloats};
  Source source(p, w, t, reinterpret_cast<char*>(all_sums + M::kWarps * Tile::kFloats));

  float A2[M::P][M::S], carry[M::P][M::S] = {}, dA[M::P][M::S] = {};
  load_decay<M>(p, w, t, A2);
  const int64_t sequence = static_cast<int64_t>(w.b) * p.K + w.k;
  source.begin();
  if (leg.first()) {
    if (p.dlast) load_states<M>(p, w, t, p.dlast + sequence * p.D * p.N, carry);
    fold_splits<M>(p, w, t, A2, carry, true);
  } else {
    leg.receive<M>(w, t, carry);
  }

  // Where this lane puts its sums, in what a segment's first step has of them.
  const int channel_at = 2 * t.group * M::P + ChannelSum::first(t.lane);
  StateSums state_sums(t);

  for (int tile = w.last_tile - 1; tile >= w.first_tile; --tile) {
    float h[M::P][M::S];
    load_states<M>(p, w, t, p.states + (sequence * w.tiles + tile) * p.D * p.N, h);
    const auto ahead = source.ahead(tile);
    source.wait();
    __syncthreads();
    source.prepare(tile, ahead, stage);
    __syncthreads();
    const int segments = (w.steps(tile) + kSegment - 1) / kSegment;

    save_own<M>(sums.slot(0), t.lane, h);
    const float* own_steps = steps + 2 * t.group * M::P;
    SegmentRows<M> rows;
    rows.load(own_steps, bc + t.state, 0);
#pragma unroll 1
    for (int segment = 1; segment < segments; ++segment) {
      const SegmentRows<M> now = rows;
      rows.load(own_steps, bc + t.state, segment);  // ahead of the states' store
#pragma unroll
      for (int i = 0; i < kSegment; ++i) advance<M>(h, A2, now.pairs[i], now.Bs[i]);
      save_own<M>(sums.slot(segment), t.lane, h);
    }

#pragma unroll 1
    for (int segment = segments - 1; segment >= 0; --segment) {
      // States before the segment and after each of its steps, and the decays between them.
      float hs[kSegment + 1][M::P][M::S], a[kSegment][M::P][M::S];
      float* slot = sums.slot(segment);
      const float* pair = steps + segment * kSegment * stage.kRow + 2 * t.group * M::P;
      const float* b = bc + segment * kSegment * 2 * M::N + t.state;
      const float* dy_at = source.dy_row(segment * kSegment) + t.group * M::P;
      load_own<M>(slot, t.lane, hs[0]);
#pragma unroll
      for (int i = 0; i < kSegment; ++i) {
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
      // The sums of some steps are stored together: a store would hold up the next step's loads, and so
      // the shuffles of one step the products of another. All four together would spill registers.
      float channel_sums[kTogether][ChannelSum::kHeld];
#pragma unroll
      for (int i = kSegment - 1; i >= 0; --i) {
        float pairs[2 * M::P], Bs[M::S], Cs[M::S], dy[M::P], g[M::P][M::S];
        load_vector(pair + i * stage.kRow, pairs);
        load_vector(b + i * 2 * M::N, Bs);
        load_vector(b + i * 2 * M::N + M::N, Cs);
        load_vector(dy_at + i * Source::kDyRow, dy);
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
        // Every lane has its states: their place now takes the segment's sums.
        if (i + kTogether == kSegment) __syncwarp();
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
    source.write_gradients(tile, sums, stage);
    __syncthreads();
    source.load(tile - 1);
    source.write_block_gradients(tile, Tile{all_sums}, stage);
  }

  leg.hand_over<M>(w, t, carry);
  if (p.a_is_log) {  // d log(-A) = dA A
#pragma unroll
    for (int c = 0; c < M::P; ++c) {
#pragma unroll
      for (int s = 0; s < M::S; ++s) dA[c][s] *= A2[c][s] * kLn2;
    }
  }
  add_states<M>(p, w, t, p.dA + (w.sum_row(p) * p.K + w.k) * p.D * p.N, dA);
  source.finish();
}

}  // namespace swin_umamba
