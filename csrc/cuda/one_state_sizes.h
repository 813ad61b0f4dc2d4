// How images with one state a channel are shared out: see one_state.cuh.
#pragma once

namespace swin_umamba {

constexpr int kOneStateChannels = 16;  // of a warp
constexpr int kOneStateSteps = 8;      // of a lane
constexpr int kOneStateMost = 4;       // warps of channels of a block, at most
constexpr int kOneStateTiles = 4;      // side by side, at most
constexpr int kOneStateWarps = 16;     // warps of a block, at most
constexpr int kOneStateBackwardWarps = 12;  // backwards, where more would spill registers

}  // namespace swin_umamba
