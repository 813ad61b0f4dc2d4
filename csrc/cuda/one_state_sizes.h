// How images with one state a channel are shared out: see one_state.cuh.
#pragma once

namespace swin_umamba {

constexpr int kOneStateChannels = 16;  // of a warp
constexpr int kOneStateSteps = 8;      // of a lane
constexpr int kOneStateMost = 4;       // warps of channels of a block, at most
constexpr int kOneStateWarps = 16;     // warps of a block, at most
// Backwards, by blocks of 8 ranks: with more warps, registers would be spilled.
constexpr int one_state_backward_warps(int rank_blocks) { return rank_blocks >= 2 ? 12 : kOneStateWarps; }

}  // namespace swin_umamba
