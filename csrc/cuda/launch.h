// Entry points of the CUDA kernels, free of CUDA headers so that the bindings compile anywhere.
#pragma once

#include <cstdint>
#include <string>

#include "params.h"

namespace swin_umamba {

// kForward needs split_state and split_dt of kForwardSplits where splits > 1; kBackward those of
// kBackwardSplits, and the states that kForward saved.
enum class Pass { kForward, kForwardSplits, kBackward, kBackwardSplits };

// Which kernels serve these inputs: those that make dt from proj themselves (half inputs in
// channels-last memory, from compute capability 8.0) or the general ones.
bool image_kernels_serve(int dtype, int D, int N, int R, int capability);
// ScanParams::one_state, 0 where its kernels do not serve; proj is for them where image_kernels_serve() too.
int one_state_warps(int dtype, int D, int N, int capability);
// The 1-D scan of rows of steps, 16-byte aligned: ScanParams::sequence.
bool sequence_kernels_serve(int N, int64_t L, int capability);
// The most states that any kernel takes.
int max_states();
// Shared memory that the largest of their kernels wants for a block, and what a device gives to one.
int shared_bytes(const ScanParams& p);
int most_shared_bytes(int device);
// Blocks of channels that a launch covers: ScanParams::blocks.
int channel_blocks(const ScanParams& p);
// p with its sequences cut, splits to least_shared, so that the pass fills the current device.
ScanParams cut(ScanParams p, Pass pass);
// Throws std::runtime_error with CUDA's reason where the launch fails. `stream` is a cudaStream_t.
void launch(const ScanParams& p, Pass pass, std::uintptr_t stream);
// One launch for all of `all`.
void launch_totals(Totals all, std::uintptr_t stream);
// Driver and runtime versions as CUDA counts them (13000 is 13.0); 0 where there is no driver.
int driver_version();
int runtime_version();

// Tags of the kernel families; each is instantiated in a file of its own.
struct Float {};
struct Half {};
struct BFloat16 {};
template <int N>
struct Given {};
template <int N, class T, bool kPieces = false>  // whether rows of proj are whole pieces of 16 bytes
struct Image {};
template <int N, class T>
struct Sequence {};
template <class T, int RB>  // blocks of 8 ranks; 0 where delta is given
struct OneState {};

template <class Family>
void launch_family(const ScanParams& p, Pass pass, void* stream);
template <class Family>
int resident_blocks(const ScanParams& p, Pass pass);  // of one multiprocessor
template <class Family>
int family_shared_bytes(const ScanParams& p);
template <class Family>
int family_channel_blocks(const ScanParams& p);

}  // namespace swin_umamba
