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

// Whether blocks of a launch form clusters, and how many in one.
inline int cluster_blocks(const ScanParams&) { return 1; }
inline int cluster_blocks(const OneStateParams& p) { return p.one_state_blocks; }

// A launch's configuration, which contains pointers into itself.
struct Launch {
  cudaLaunchConfig_t config{};
  cudaLaunchAttribute cluster{};
  Launch(int64_t grid, int threads, int bytes, int cluster_blocks, void* stream) {
    config.gridDim = dim3(static_cast<unsigned>(grid));
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    if (cluster_blocks == 1) return;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {static_cast<unsigned>(cluster_blocks), 1, 1};
    config.attrs = &cluster;
    config.numAttrs = 1;
  }
  Launch(const Launch&) = delete;
};

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
    const int64_t ranges = sequences * splits * (kChained ? p.segments : 1);
    const Launch launch(ranges * cluster_blocks(p), threads, bytes, cluster_blocks(p), stream);
    check(cudaLaunchKernelEx(&launch.config, kernel, own), "launching the scan kernel");
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

// How many clusters the current device runs at a time; 0 without code for clusters.
template <class Tag>
int resident_clusters(const typename Tag::Params& p, Pass pass) {
  constexpr int kMinVersion = 90;
  int clusters = 0;
  with_kernel(Tag{}, p, pass, [&](auto kernel, int threads, int bytes) {
    cudaFuncAttributes found;
    check(cudaFuncGetAttributes(&found, kernel), "asking for the scan kernel's code");
    if (found.ptxVersion < kMinVersion || bytes > max_shared_bytes(current_device())) return;
    allow_shared_bytes(reinterpret_cast<const void*>(kernel), current_device(), bytes);
    const Launch launch(cluster_blocks(p), threads, bytes, cluster_blocks(p), nullptr);
    check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &launch.config), "asking for the scan kernel's clusters");
  });
  return clusters;
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
  template int resident_clusters<__VA_ARGS__>(const typename __VA_ARGS__::Params&, Pass);     \
  template int family_shared_bytes<__VA_ARGS__>(const typename __VA_ARGS__::Params&);         \
  template int family_channel_blocks<__VA_ARGS__>(const typename __VA_ARGS__::Params&);

}  // namespace swin_umamba
