// Partitions the work of a pass so that it fills the current device.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "check.cuh"
#include "families.h"
#include "mapping.cuh"
#include "one_state_sizes.h"

namespace swin_umamba {
namespace {

int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&value, which, device), "asking for the device's size");
  return value;
}

// Throughput of a multiprocessor with none, a third, two thirds and all of the blocks that it can hold, as
// measured; the pass before splits takes `extra` of a pass's time. See docs/kernels.md.
struct Speed {
  double of[4];
  double extra;
  double operator()(double share) const {
    const double thirds = 3 * std::min(share, 1.0);
    const int low = std::min(static_cast<int>(thirds), 2);
    return of[low] + (thirds - low) * (of[low + 1] - of[low]);
  }
};
constexpr Speed kForwardSpeed{{0, 0.74, 0.94, 1}, 0.8}, kBackwardSpeed{{0, 0.6, 0.89, 1}, 0.32};

// How much longer tiles take, as measured, where the images in flight do not fit into the cache, which then loses
// the pixels that one direction leaves to the next.
double miss(const OneStateParams& p, bool forward, double images) {
  const int cache = attribute(cudaDevAttrL2CacheSize);
  const double pixels = images * p.H * p.W * p.D;
  if (p.dtype == kFloat32) return forward && 8 * pixels > 1.5 * cache ? 1.2 : 1;  // x and y
  if (p.splits > 1) return 1;
  const double over = std::max(0.0, (forward ? 6 : 10) * pixels / cache - 0.5);   // x and y, or x, dy and dx
  return forward ? 1 + std::min(0.2 * over, 0.6) : 1 + std::min(0.12 * over, 0.42);
}

// Blocks of many tiles, and clusters of such blocks, work on a sequence in parallel, at the cost of handing states
// from warp to warp; fewer images are then in flight. Blocks of few tiles are numerous enough to fill the
// multiprocessors evenly. Time is counted in tiles of a warp, as measured: docs/kernels.md.
void partition_one_state(OneStateParams& params, Pass pass) {
  constexpr double kLaunch = 40, kExtra = 0.6;  // of a pass before this one
  constexpr double kIdle = 4;                   // warps with which a multiprocessor is half busy
  constexpr int kMaxSplits = 64;
  const bool forward = pass == Pass::kForward;
  // Handing a state to the next tile, and how much longer it takes to another block's.
  const double hand_over = forward ? 2.05 : 1.2, to_block = forward ? 0.65 : 0.4;
  OneStateParams p = params;
  const int processors = attribute(cudaDevAttrMultiProcessorCount);
  const int tiles = ceil_div(static_cast<int64_t>(p.H) * p.W, kTile);
  double best = 0;
  const auto resident_of = [&] {
    return with_family(p, [&](auto tag, const auto& own) { return resident_blocks<decltype(tag)>(own, pass); });
  };
  const auto consider = [&](int resident, double available) {
    p.tiles_per_split = ceil_div(tiles, p.splits);
    if (ceil_div(tiles, p.tiles_per_split) != p.splits) return;
    const int warps = p.one_state * p.one_state_tiles, cluster = p.one_state_blocks;
    const int abreast = p.one_state_tiles * cluster, turns = ceil_div(p.tiles_per_split, abreast);
    const double tile = abreast == 1 ? 1 : 1.1 + 0.02 * p.one_state_tiles + (cluster > 1 ? 0.045 * cluster : 0);
    const double chain = cluster > 1 ? abreast * hand_over + cluster * to_block : 0;
    const auto round = [&](int blocks) {
      return turns * std::max(blocks * tile * warps * (1 + kIdle / (blocks * warps)), chain);
    };
    const double image_blocks = static_cast<double>(p.directions) * channel_blocks(p) * cluster / available;
    const int blocks = std::ceil(p.B * image_blocks * p.splits);
    double time = blocks / resident * round(resident);
    if (blocks % resident > 0) time += round(blocks % resident);
    time *= miss(p, forward, std::min<double>(p.B, resident / (image_blocks * p.splits)));
    if (p.splits > 1) time += kLaunch + kExtra * time;
    if (best > 0 && time > 0.98 * best) return;
    params = p;
    best = time;
  };
  int largest = 0;
  for (p.one_state_tiles = 1; p.one_state_tiles <= kOneStateMaxTiles; ++p.one_state_tiles) {
    const int resident = resident_of();
    if (resident == 0) break;
    largest = p.one_state_tiles;
    if (largest == 3) continue;  // useful only in clusters
    for (p.splits = 1; p.splits <= std::min(tiles, kMaxSplits); ++p.splits) consider(resident, processors);
    p.splits = 1;
  }
  if (largest == 0 || p.dtype == kFloat32) return;  // clusters were measured with 16 bits
  p.one_state_tiles = largest;
  const int resident = resident_of();
  for (p.one_state_blocks = 2; p.one_state_blocks <= kOneStateMaxBlocks; p.one_state_blocks *= 2) {
    const int clusters =
        with_family(p, [&](auto tag, const auto& own) { return resident_clusters<decltype(tag)>(own, pass); });
    if (clusters > 0) consider(resident, static_cast<double>(clusters) * p.one_state_blocks / resident);
  }
}

}  // namespace

// Time is counted in tiles of a block. A multiprocessor with few blocks idles between dependent
// instructions: splits make more of them, at the cost of another launch. Segments balance the work between
// multiprocessors, at the cost of more starts and ends; but blocks that wait for their turn occupy places,
// and slow down others, so that there may not be many more places than ranges.
void partition(ScanParams& params, Pass pass) {
  constexpr double kSegments = 1.04, kFull = 0.75;
  constexpr double kFold = 0.05;  // of a tile, to fold what one split adds
  constexpr int kSegmentTiles = 12, kMaxSegments = 16, kMaxSplits = 64;
  if (params.family == Family::kOneState || params.family == Family::kOneStateImage) {
    return partition_one_state(static_cast<OneStateParams&>(params), pass);
  }
  const bool forward = pass == Pass::kForward;
  const Speed& speed = forward ? kForwardSpeed : kBackwardSpeed;
  const int processors = attribute(cudaDevAttrMultiProcessorCount);
  const int shared = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  const auto resident_of = [&](Pass launch) {
    return with_family(params, [&](auto tag, const auto& own) { return resident_blocks<decltype(tag)>(own, launch); });
  };
  const int resident = resident_of(pass);
  const int resident_before = resident_of(forward ? Pass::kForwardSplits : Pass::kBackwardSplits);
  const int tiles = ceil_div(static_cast<int64_t>(params.H) * params.W, kTile);
  const double jobs = static_cast<double>(params.B) * params.directions * channel_blocks(params) / processors;
  double best = 0;
  for (int splits = 1; splits <= std::min(tiles, kMaxSplits); ++splits) {
    const int per_split = ceil_div(tiles, splits);
    if (splits > 1 && ceil_div(tiles, per_split) != splits) continue;
    const auto consider = [&](int segments, int per_segment, int places) {
      const int min_shared_bytes = places < resident ? shared / (places + 1) : 0;
      // The time of a launch over this many ranges of each sequence.
      const auto rounds = [&](int ranges, int places, int resident) {
        const double blocks = jobs * ranges;
        if (segments > 1) return kSegments * blocks / speed(std::min<double>(blocks, places) / resident);
        const int busiest = std::ceil(blocks), last = (busiest - 1) % places + 1;  // the blocks of the last round
        return busiest - last + last / speed(static_cast<double>(last) / resident);
      };
      double time = rounds(splits, places, resident) * (per_split + (splits > 1 ? kFold * splits : 0));
      if (splits > 1) {
        const int before = min_shared_bytes > 0 ? std::min(places, resident_before) : resident_before;
        time += rounds(splits - 1, before, resident_before) * speed.extra * per_split;
      }
      if (best > 0 && time > 0.997 * best) return;
      params.splits = splits;
      params.tiles_per_split = per_split;
      params.segments = segments;
      params.tiles_per_segment = per_segment;
      params.min_shared_bytes = min_shared_bytes;
      best = time;
    };
    consider(1, per_split, resident);
    const int segments = std::min(per_split / kSegmentTiles, kMaxSegments);
    if (segments < 2) continue;
    const int per_segment = ceil_div(per_split, segments);
    for (int places = 1; places <= resident && kFull * places <= jobs * splits; ++places) {
      consider(ceil_div(per_split, per_segment), per_segment, places);
    }
  }
}

}  // namespace swin_umamba
