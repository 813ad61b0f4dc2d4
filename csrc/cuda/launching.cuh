// What all families of kernels do alike around a launch. A family's tag has an overload of with_kernel(),
// which calls f(kernel, threads, shared bytes) for the kernel that makes a pass, and one of channel_blocks().
#pragma once

#include <algorithm>

#include "check.cuh"
#include "launch.h"

namespace swin_umamba {

template <class Family>
void launch_family(const ScanParams& p, Pass pass, void* stream) {
  with_kernel(Family{}, p, pass, [&](auto kernel, int threads, int bytes) {
    bytes = std::max<int>(bytes, p.least_shared);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "preparing the scan kernel");
    const bool whole = pass == Pass::kForward || pass == Pass::kBackward;
    const int splits = whole ? p.splits : p.splits - 1;
    const int64_t sequences = static_cast<int64_t>(p.B) * p.directions * p.blocks;
    ScanParams own = p;
    if (!whole && p.legs > 1) own.leg_turns += leg_counters(sequences * p.splits);
    const auto grid = static_cast<unsigned>(sequences * splits * (p.one_state ? 1 : p.legs));
    kernel<<<grid, threads, bytes, static_cast<cudaStream_t>(stream)>>>(own);
    check(cudaGetLastError(), "launching the scan kernel");
  });
}

// 0 where a block wants more shared memory than the current device gives.
template <class Family>
int resident_blocks(const ScanParams& p, Pass pass) {
  int blocks = 0, device = 0;
  check(cudaGetDevice(&device), "asking for the device");
  with_kernel(Family{}, p, pass, [&](auto kernel, int threads, int bytes) {
    if (bytes > most_shared_bytes(device)) return;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "preparing the scan kernel");
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, bytes),
          "asking for the scan kernel's occupancy");
  });
  return blocks;
}

template <class Family>
int family_shared_bytes(const ScanParams& p) {
  constexpr int kTurn = 16;  // see legs.cuh
  int most = 0;
  for (const Pass pass : {Pass::kForward, Pass::kForwardSplits, Pass::kBackward, Pass::kBackwardSplits}) {
    with_kernel(Family{}, p, pass, [&](auto, int, int bytes) { most = std::max(most, bytes + kTurn); });
  }
  return most;
}

template <class Family>
int family_channel_blocks(const ScanParams& p) {
  return channel_blocks(Family{}, p);
}

#define SWIN_UMAMBA_INSTANTIATE(...)                                             \
  template void launch_family<__VA_ARGS__>(const ScanParams&, Pass, void*);      \
  template int resident_blocks<__VA_ARGS__>(const ScanParams&, Pass);            \
  template int family_shared_bytes<__VA_ARGS__>(const ScanParams&);              \
  template int family_channel_blocks<__VA_ARGS__>(const ScanParams&);

}  // namespace swin_umamba
