// How images with one state per channel are divided among warps: see one_state.cuh.
#pragma once

namespace swin_umamba {

constexpr int kOneStateChannels = 16;          // of a warp
constexpr int kOneStateSteps = 8;              // of a lane
constexpr int kOneStateMaxChannelWarps = 4;    // warps of a block with different channels
constexpr int kOneStateMaxTiles = 4;           // of a block, side by side
constexpr int kOneStateMaxBlocks = 4;          // of a cluster: more would wait for each other longer
constexpr int kOneStateMaxWarps = 16;          // of a block
constexpr int kOneStateMaxBackwardWarps = 12;  // of a block backwards: more would spill registers

}  // namespace swin_umamba
