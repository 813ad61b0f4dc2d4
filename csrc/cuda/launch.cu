// Which kernels support which inputs, and launches.
#include <cuda_runtime.h>

#include <algorithm>

#include "check.cuh"
#include "families.h"
#include "mapping.cuh"
#include "one_state_sizes.h"

namespace swin_umamba {

// 16-byte rows of x, whole pairs in a row of proj, and offsets into dt_weight of 32 bits. With one state and
// float32, larger ranks are faster if delta is given.
bool image_kernels_serve(int dtype, int D, int N, int R, int capability) {
  if (capability < kMinMatrixCapability || D % 8 != 0 || R % 2 != 0) return false;
  const bool compiled = std::find(std::begin(kImageStates), std::end(kImageStates), N) != std::end(kImageStates);
  return compiled && R <= (N > 1 ? 64 : dtype == kFloat32 ? 24 : 48);
}

// Rows of x in pieces of 16 bytes. Of the numbers of warps that leave the fewest warps without a channel, the largest.
int one_state_warps(int dtype, int D, int N, int capability) {
  if (capability < kMinMatrixCapability || N != 1 || D % (dtype == kFloat32 ? 4 : 8) != 0) return 0;
  const auto all = [&](int warps) { return warps * ceil_div(D, warps * kOneStateChannels); };
  int best = kOneStateMaxChannelWarps;
  for (int warps = best - 1; warps > 0; --warps) {
    if (all(warps) < all(best)) best = warps;
  }
  return best;
}

// Whole pieces of four steps, and mamba-ssm's number of states: other inputs use the kernels of strided.cuh.
bool sequence_kernels_serve(int N, int64_t L, int capability) {
  return capability >= kMinMatrixCapability && N > 8 && N <= 16 && L % 4 == 0;
}

int shared_bytes(const ScanParams& p) {
  return with_family(p, [](auto tag, const auto& own) { return family_shared_bytes<decltype(tag)>(own); });
}

int channel_blocks(const ScanParams& p) {
  return with_family(p, [](auto tag, const auto& own) { return family_channel_blocks<decltype(tag)>(own); });
}

void launch(const ScanParams& p, Pass pass, std::uintptr_t stream) {
  with_family(p, [&](auto tag, const auto& own) {
    launch_family<decltype(tag)>(own, pass, reinterpret_cast<void*>(stream));
    return 0;
  });
}

int max_shared_bytes(int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "asking for the device's shared memory");
  return value;
}

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace swin_umamba
