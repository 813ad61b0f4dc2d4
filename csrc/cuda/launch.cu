// Picks the kernel family for a set of parameters, and how a device's work is cut.
#include <cuda_runtime.h>

#include <algorithm>

#include <stdexcept>
#include <string>

#include "check.cuh"
#include "launch.h"
#include "mapping.cuh"
#include "one_state_sizes.h"

namespace swin_umamba {
namespace {

template <class T, class F>
auto with_ranks(const ScanParams& p, F f) {
  if (p.R <= 8) return f(OneState<T, 1>{});
  if (p.R <= 16) return f(OneState<T, 2>{});
  if (p.R <= 24) return f(OneState<T, 3>{});
  return f(OneState<T, 6>{});
}

// Calls f with the tag of the family that serves p.
template <class F>
auto with_family(const ScanParams& p, F f) {
  if (p.one_state) {
    switch (p.dtype) {
      case kFloat16: return p.proj ? with_ranks<Half>(p, f) : f(OneState<Half, 0>{});
      case kBFloat16: return p.proj ? with_ranks<BFloat16>(p, f) : f(OneState<BFloat16, 0>{});
      default: return f(OneState<Float, 0>{});
    }
  }
  if (p.proj) {
    const bool half = p.dtype == kFloat16;
    switch (p.N) {
      case 4: return half ? f(Image<4, Half>{}) : f(Image<4, BFloat16>{});
      case 8: return half ? f(Image<8, Half>{}) : f(Image<8, BFloat16>{});
      case 16:
        if (p.R % 8 == 0) return half ? f(Image<16, Half, true>{}) : f(Image<16, BFloat16, true>{});
        return half ? f(Image<16, Half>{}) : f(Image<16, BFloat16>{});
      case 32: return half ? f(Image<32, Half>{}) : f(Image<32, BFloat16>{});
      case 64: return half ? f(Image<64, Half>{}) : f(Image<64, BFloat16>{});
    }
    throw std::runtime_error("no image scan kernel for N = " + std::to_string(p.N));
  }
  if (p.sequence) {
    switch (p.dtype) {
      case kFloat16: return f(Sequence<16, Half>{});
      case kBFloat16: return f(Sequence<16, BFloat16>{});
      default: return f(Sequence<16, Float>{});
    }
  }
  if (p.N <= 1) return f(Given<1>{});
  if (p.N <= 4) return f(Given<4>{});
  if (p.N <= 8) return f(Given<8>{});
  if (p.N <= 16) return f(Given<16>{});
  if (p.N <= 32) return f(Given<32>{});
  if (p.N <= 64) return f(Given<64>{});
  if (p.N <= 256) return f(Given<256>{});
  throw std::runtime_error("no scan kernel for N = " + std::to_string(p.N));
}

}  // namespace

int max_states() { return 256; }

// 16-byte rows of x, whole pairs in a row of proj, and offsets into dt_weight of 32 bits.
bool image_kernels_serve(int dtype, int D, int N, int R, int capability) {
  if (capability < 80 || dtype == kFloat32 || R % 2 != 0) return false;
  if (N == 1) return D % 8 == 0 && R <= 48;
  const bool states = N == 4 || N == 8 || N == 16 || N == 32 || N == 64;
  return states && D % 8 == 0 && R <= 64;
}

// Rows of x in pieces of 16 bytes. Of the numbers of warps that leave the fewest without a channel the largest.
int one_state_warps(int dtype, int D, int N, int capability) {
  if (capability < 80 || N != 1 || D % (dtype == kFloat32 ? 4 : 8) != 0) return 0;
  const auto all = [&](int warps) { return warps * ceil_div(D, warps * kOneStateChannels); };
  int best = kOneStateMost;
  for (int warps = best - 1; warps > 0; --warps) {
    if (all(warps) < all(best)) best = warps;
  }
  return best;
}

// Whole pieces of four steps, and mamba-ssm's number of states: others have the general kernels.
bool sequence_kernels_serve(int N, int64_t L, int capability) {
  return capability >= 80 && N > 8 && N <= 16 && L % 4 == 0;
}

int shared_bytes(const ScanParams& p) {
  return with_family(p, [&](auto family) { return family_shared_bytes<decltype(family)>(p); });
}

int channel_blocks(const ScanParams& p) {
  return with_family(p, [&](auto family) { return family_channel_blocks<decltype(family)>(p); });
}

namespace {

int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&value, which, device), "asking for the device's size");
  return value;
}

// How much a multiprocessor gets done with none, a third, two thirds and all of the blocks that it can
// hold, as measured; what makes splits possible takes `extra` of a pass's time. See benchmarks/NOTES.md.
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

// Blocks of many tiles side by side share a sequence out, at the price of handing states from warp to warp;
// of few, they come in numbers that fill the multiprocessors evenly. Time is counted in tiles of a warp, all
// as measured: benchmarks/NOTES.md.
ScanParams cut_one_state(ScanParams p, Pass pass) {
  constexpr double kLaunch = 40, kExtra = 0.6;  // what a pass before this one takes
  constexpr double kIdle = 4;                   // warps with which a multiprocessor is half busy
  constexpr double kMiss = 1.2, kCaches = 1.5;  // forwards, where images on the way are so many times the cache
  constexpr int kMostSplits = 64;
  const int processors = attribute(cudaDevAttrMultiProcessorCount), cache = attribute(cudaDevAttrL2CacheSize);
  const int64_t length = static_cast<int64_t>(p.H) * p.W;
  const int tiles = ceil_div(length, kTile);
  const double image_bytes = static_cast<double>(length) * p.D * (p.dtype == kFloat32 ? 8 : 6);  // x and y
  const double image_blocks = static_cast<double>(p.directions) * channel_blocks(p) / processors;
  ScanParams best = p;
  double least = 0;
  for (p.one_state_tiles = 1; p.one_state_tiles * p.one_state <= kOneStateWarps; p.one_state_tiles *= 2) {
    const int warps = p.one_state * p.one_state_tiles;
    const int resident =
        with_family(p, [&](auto family) { return resident_blocks<decltype(family)>(p, pass); });
    if (resident == 0) break;
    const double tile = p.one_state_tiles == 1 ? 1 : 1.1 + 0.02 * p.one_state_tiles;
    for (p.splits = 1; p.splits <= std::min(tiles, kMostSplits); ++p.splits) {
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
      if (least > 0 && time > 0.98 * least) continue;
      best = p;
      least = time;
    }
  }
  return best;
}

}  // namespace

// Time is counted in tiles of a block. A multiprocessor with few blocks idles between dependent
// instructions: splits make more of them, and a launch of their own. Legs let multiprocessors share
// evenly what they would else have by whole blocks, at a few more starts and ends; but blocks that wait
// for their turn take places, and crowd others, so that there may not be many more places than ranges.
ScanParams cut(ScanParams p, Pass pass) {
  constexpr double kLegs = 1.04, kFull = 0.75;
  constexpr double kFold = 0.05;  // of a tile, to take in what one split adds
  constexpr int kLegTiles = 12, kMostLegs = 16, kMostSplits = 64;
  if (p.one_state) return cut_one_state(p, pass);
  const bool forward = pass == Pass::kForward;
  const Speed& speed = forward ? kForwardSpeed : kBackwardSpeed;
  const int processors = attribute(cudaDevAttrMultiProcessorCount);
  const int shared = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  const auto most = [&](Pass launch) {
    return with_family(p, [&](auto family) { return resident_blocks<decltype(family)>(p, launch); });
  };
  const int resident = most(pass), resident_before = most(forward ? Pass::kForwardSplits : Pass::kBackwardSplits);
  const int tiles = ceil_div(static_cast<int64_t>(p.H) * p.W, kTile);
  const double jobs = static_cast<double>(p.B) * p.directions * channel_blocks(p) / processors;
  ScanParams best = p;
  double least = 0;
  for (int splits = 1; splits <= std::min(tiles, kMostSplits); ++splits) {
    const int per_split = ceil_div(tiles, splits);
    if (splits > 1 && ceil_div(tiles, per_split) != splits) continue;
    p.splits = splits;
    p.tiles_per_split = per_split;
    const auto consider = [&](int legs, int per_leg, int places) {
      p.legs = legs;
      p.tiles_per_leg = per_leg;
      p.least_shared = places < resident ? shared / (places + 1) : 0;
      // Of a launch over so many ranges of each sequence.
      const auto rounds = [&](int ranges, int places, int resident) {
        const double blocks = jobs * ranges;
        if (legs > 1) return kLegs * blocks / speed(std::min<double>(blocks, places) / resident);
        const int most = std::ceil(blocks), last = (most - 1) % places + 1;  // that run to the end alone
        return most - last + last / speed(static_cast<double>(last) / resident);
      };
      double time = rounds(splits, places, resident) * (per_split + (splits > 1 ? kFold * splits : 0));
      if (splits > 1) {
        const int before = p.least_shared > 0 ? std::min(places, resident_before) : resident_before;
        time += rounds(splits - 1, before, resident_before) * speed.extra * per_split;
      }
      if (least > 0 && time > 0.997 * least) return;
      best = p;
      least = time;
    };
    consider(1, per_split, resident);
    const int legs = std::min(per_split / kLegTiles, kMostLegs);
    if (legs < 2) continue;
    const int per_leg = ceil_div(per_split, legs);
    for (int places = 1; places <= resident && kFull * places <= jobs * splits; ++places) {
      consider(ceil_div(per_split, per_leg), per_leg, places);
    }
  }
  return best;
}

void launch(const ScanParams& p, Pass pass, std::uintptr_t stream) {
  with_family(p, [&](auto family) {
    launch_family<decltype(family)>(p, pass, reinterpret_cast<void*>(stream));
    return 0;
  });
}

int most_shared_bytes(int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "asking for the device's shared memory");
  return value;
}

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace swin_umamba
