// Numbers that kernels and their callers in Python agree on; the bindings export them.
#pragma once

#include <cstdint>

namespace swin_umamba {

constexpr int kTile = 32;       // steps staged together, and the distance between two saved states
constexpr int kAlignment = 16;  // bytes, of tensors that kernels read in vectors
constexpr int kMaxStates = 256;
constexpr int kImageStates[] = {1, 4, 8, 16, 32, 64};  // those that image kernels are compiled for
constexpr int kMinCapability = 75;        // compute capability 7.5
constexpr int kMinMatrixCapability = 80;  // of kernels with matrix and asynchronous copy instructions

// Gradients of parameters are summed times this: atomic additions take subnormal numbers for 0, which
// gradients by A of tiny steps are.
constexpr float kSumScale = 1 << 24;

}  // namespace swin_umamba
