// Launch code shared by all families. A tag has an overload of with_kernel(), which calls f(kernel,
// threads, shared bytes) for the kernel of a pass, and one of channel_blocks().
#pragma once

#include <algorithm>
#include <map>
#include <mutex>
#include <type_traits>
#include <utility>

#include "check.cuh"
#include "families.h"

namespace swin_umamba {

// Allows a kernel this much dynamic shared memory on the current device. The limit is never lowered
// again: another thread may be about to launch the same kernel with more.
inline void allow_shared_bytes(const void* kernel, int device, int bytes) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, int> limits;
  const std::lock_guard<std::mutex> lock(mutex);
  int& limit = limits[{kernel, device}];
  const int raised = std::max(limit, bytes);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, raised), "preparing the scan kernel");
  limit = raised;
}

inline int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "asking for the device");
  return device;
}

template <class Tag>
void launch_family(const typename Tag::Params& p, Pass pass, void* stream) {
  with_kernel(Tag{}, p, pass, [&](auto kernel, int threads, int bytes) {
    bytes = std::max<int>(bytes, p.min_shared_bytes);
    allow_shared_bytes(reinterpret_cast<const void*>(kernel), current_device(), bytes);
    constexpr bool kChained = !std::is_same_v<typename Tag::Params, OneStateParams>;
    const bool whole = pass == Pass::kForward || pass == Pass::kBackward;
    const int splits = whole ? p.splits : p.splits - 1;
    const int64_t sequences = static_cast<int64_t>(p.B) * p.directions * p.blocks;
    typename Tag::Params own = p;
    if (!whole && p.segments > 1) own.counters += segment_counters(sequences * p.splits);
    const auto grid = static_cast<unsigned>(sequences * splits * (kChained ? p.segments : 1));
    kernel<<<grid, threads, bytes, static_cast<cudaStream_t>(stream)>>>(own);
    check(cudaGetLastError(), "launching the scan kernel");
  });
}

// 0 if a block needs more shared memory than the current device has.
template <class Tag>
int resident_blocks(const typename Tag::Params& p, Pass pass) {
  int blocks = 0;
  const int device = current_device();
  with_kernel(Tag{}, p, pass, [&](auto kernel, int threads, int bytes) {
    if (bytes > max_shared_bytes(device)) return;
    allow_shared_bytes(reinterpret_cast<const void*>(kernel), device, bytes);
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, bytes),
          "asking for the scan kernel's occupancy");
  });
  return blocks;
}

template <class Tag>
int family_shared_bytes(const typename Tag::Params& p) {
  constexpr int kTicket = 16;  // see segments.cuh
  int largest = 0;
  for (const Pass pass : {Pass::kForward, Pass::kForwardSplits, Pass::kBackward, Pass::kBackwardSplits}) {
    with_kernel(Tag{}, p, pass, [&](auto, int, int bytes) { largest = std::max(largest, bytes + kTicket); });
  }
  return largest;
}

template <class Tag>
int family_channel_blocks(const typename Tag::Params& p) {
  return channel_blocks(Tag{}, p);
}

#define SWIN_UMAMBA_INSTANTIATE(...)                                                          \
  template void launch_family<__VA_ARGS__>(const typename __VA_ARGS__::Params&, Pass, void*); \
  template int resident_blocks<__VA_ARGS__>(const typename __VA_ARGS__::Params&, Pass);       \
  template int family_shared_bytes<__VA_ARGS__>(const typename __VA_ARGS__::Params&);         \
  template int family_channel_blocks<__VA_ARGS__>(const typename __VA_ARGS__::Params&);

}  // namespace swin_umamba
