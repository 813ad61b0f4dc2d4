// Entry points of the CUDA kernels, free of CUDA headers so that the bindings compile anywhere.
#pragma once

#include <cstdint>

#include "params.h"

namespace swin_umamba {

// kForward needs split_state and split_dt of kForwardSplits where splits > 1; kBackward those of
// kBackwardSplits, and the states that kForward saved.
enum class Pass { kForward, kForwardSplits, kBackward, kBackwardSplits };

// ---- Which families serve these inputs. kStrided serves all, up to kMaxStates.

bool image_kernels_serve(int dtype, int D, int N, int R, int capability);
// OneStateParams::one_state, 0 where its kernels do not serve; kOneStateImage where image_kernels_serve() too.
int one_state_warps(int dtype, int D, int N, int capability);
bool sequence_kernels_serve(int N, int64_t L, int capability);

// ---- The kernels of `p.family`, which `p` must be the parameters of.

// Shared memory that the largest of them needs for a block, and what a device gives to one.
int shared_bytes(const ScanParams& p);
int max_shared_bytes(int device);
// Blocks of channels that a launch covers: ScanParams::blocks.
int channel_blocks(const ScanParams& p);
// Sets how sequences are partitioned, from splits to min_shared_bytes, so that the pass fills the
// current device.
void partition(ScanParams& p, Pass pass);
// Throws std::runtime_error with CUDA's reason if the launch fails. `stream` is a cudaStream_t.
void launch(const ScanParams& p, Pass pass, std::uintptr_t stream);

// All of them in one launch.
void launch_reductions(Reductions all, std::uintptr_t stream);
// The driver's version in CUDA's numbering (12040 is 12.4); 0 without a driver.
int driver_version();

}  // namespace swin_umamba
