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

// Sums of parameters' gradients are scaled by this: atomic additions flush subnormal numbers to 0, and
// the gradients of A from tiny steps are subnormal.
constexpr float kSumScale = 1 << 24;

}  // namespace swin_umamba
