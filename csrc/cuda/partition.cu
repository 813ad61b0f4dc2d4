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

// Blocks of many tiles work on a sequence in parallel, at the cost of handing states from warp to warp;
// blocks of few tiles are numerous enough to fill the multiprocessors evenly. Time is counted in tiles of a
// warp, as measured: docs/kernels.md.
void partition_one_state(OneStateParams& params, Pass pass) {
  constexpr double kLaunch = 40, kExtra = 0.6;  // of a pass before this one
  constexpr double kIdle = 4;                   // warps with which a multiprocessor is half busy
  constexpr double kMiss = 1.2, kCaches = 1.5;  // forwards, where images in flight exceed the cache so many times
  constexpr int kMaxSplits = 64;
  OneStateParams p = params;
  const int processors = attribute(cudaDevAttrMultiProcessorCount), cache = attribute(cudaDevAttrL2CacheSize);
  const int64_t length = static_cast<int64_t>(p.H) * p.W;
  const int tiles = ceil_div(length, kTile);
  const double image_bytes = static_cast<double>(length) * p.D * (p.dtype == kFloat32 ? 8 : 6);  // x and y
  const double image_blocks = static_cast<double>(p.directions) * channel_blocks(p) / processors;
  double best = 0;
  for (p.one_state_tiles = 1; p.one_state_tiles <= kOneStateMaxTiles; p.one_state_tiles *= 2) {
    const int warps = p.one_state * p.one_state_tiles;
    const int resident =
        with_family(p, [&](auto tag, const auto& own) { return resident_blocks<decltype(tag)>(own, pass); });
    if (resident == 0) break;
    const double tile = p.one_state_tiles == 1 ? 1 : 1.1 + 0.02 * p.one_state_tiles;
    for (p.splits = 1; p.splits <= std::min(tiles, kMaxSplits); ++p.splits) {
      p.tiles_per_split = ceil_div(tiles, p.splits);
      if (ceil_div(tiles, p.tiles_per_split) != p.splits) continue;
      const double work = tile * warps * ceil_div(p.tiles_per_split, p.one_state_tiles);
      const auto round = [&](int blocks) { return blocks * work * (1 + kIdle / (blocks * warps)); };
      const int blocks = std::ceil(p.B * image_blocks * p.splits);
      double time = blocks / resident * round(resident);
      if (blocks % resident > 0) time += round(blocks % resident);
      const double images = std::min<double>(p.B, resident / (image_blocks * p.splits));
      if (pass == Pass::kForward && images * image_bytes > kCaches * cache) time *= kMiss;
      if (p.splits > 1) time += kLaunch + kExtra * time;
      if (best > 0 && time > 0.98 * best) continue;
      params = p;
      best = time;
    }
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
      // Of a launch over so many ranges of each sequence.
      const auto rounds = [&](int ranges, int places, int resident) {
        const double blocks = jobs * ranges;
        if (segments > 1) return kSegments * blocks / speed(std::min<double>(blocks, places) / resident);
        const int busiest = std::ceil(blocks), last = (busiest - 1) % places + 1;  // that run to the end alone
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
