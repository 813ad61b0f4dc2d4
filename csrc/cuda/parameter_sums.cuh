// The gradients of Ds and of dt's bias: sums over all steps of a block.
#pragma once

#include "mapping.cuh"
#include "math.cuh"

namespace swin_umamba {

// Lane 4i+j of a warp adds up steps i + 8 * _ of its channels 8 * column + 2j + {0, 1}.
template <class M>
struct ParameterSums {
  static constexpr int kColumns = M::WC / 8;
  using Sum = LaneSum<4 * kColumns, 8, 4>;  // over the lanes with other steps of the same channels
  float held[Sum::kHeld] = {};

  // A lane's sums of some steps, by column: two of dDs, then two of dbias.
  __device__ void add(float (&sums)[4 * kColumns], int lane) {
    Sum::run(sums, lane);
#pragma unroll
    for (int v = 0; v < Sum::kHeld; ++v) held[v] += sums[v];
  }

  __device__ void write(const ScanParams& p, const Block& w, const Lane<M>& t) const {
    if (!Sum::owner(t.lane)) return;
    const int64_t row = (w.sum_row(p) * p.K + w.k) * p.D;
#pragma unroll
    for (int v = 0; v < Sum::kHeld; ++v) {
      const int i = Sum::first(t.lane) + v;
      const int c = w.channel + t.warp * M::WC + i / 4 * 8 + 2 * (t.lane % 4) + i % 2;
      if (c < w.channel_end) add_to((i % 4 < 2 ? p.dDs : p.dbias) + row + c, kSumScale * held[v]);
    }
  }
};

}  // namespace swin_umamba
