// Picks the kernel family for a set of parameters, and the number of splits for a device.
#include <cuda_runtime.h>

#include <algorithm>

#include <stdexcept>
#include <string>

#include "launch.h"
#include "mapping.cuh"

namespace swin_umamba {
namespace {

// Calls f with the tag of the family that serves p.
template <class F>
auto with_family(const ScanParams& p, F f) {
  if (p.proj) {
    const bool half = p.dtype == kFloat16;
    switch (p.N) {
      case 1: return half ? f(Image<1, Half>{}) : f(Image<1, BFloat16>{});
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

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

}  // namespace

int max_states() { return 256; }

// 16-byte rows of x, whole pairs in a row of proj, and weights that fit beside the rest in shared
// memory.
bool image_kernels_serve(int dtype, int D, int N, int R, int capability) {
  const bool states = N == 1 || N == 4 || N == 8 || N == 16 || N == 32 || N == 64;
  return capability >= 80 && dtype != kFloat32 && states && D % 8 == 0 && R % 2 == 0 && R <= 64;
}

// Whole pieces of four steps, and mamba-ssm's number of states: others have the general kernels.
bool sequence_kernels_serve(int N, int64_t L, int capability) {
  return capability >= 80 && N > 8 && N <= 16 && L % 4 == 0;
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

// How much a multiprocessor gets done with 0, 1, 2, 3 blocks of a pass at a time, as measured; what makes
// splits possible takes `extra` of the pass's time. See benchmarks/NOTES.md.
struct Speed {
  double of[4];
  double extra;
  double operator()(double blocks) const {
    const int low = std::min(static_cast<int>(blocks), 2);
    return of[low] + std::min(blocks - low, 1.0) * (of[low + 1] - of[low]);
  }
};
constexpr Speed kForwardSpeed{{0, 0.74, 0.94, 1}, 0.8}, kBackwardSpeed{{0, 0.6, 0.89, 1}, 0.36};

}  // namespace

// Time is counted in tiles of a block. A multiprocessor with few blocks idles between dependent
// instructions: splits make more of them, and a pass of their own. Legs let multiprocessors share
// evenly what they would else have by whole blocks, at a few more starts and ends; but blocks that wait
// for their turn take places, and crowd others, so that there may be no more places than ranges.
Cut choose_cut(const ScanParams& p, Pass pass) {
  constexpr double kLegs = 1.04, kFull = 0.75;
  constexpr double kFold = 0.05;  // of a tile, to take in what one split adds
  constexpr int kLegTiles = 12, kMostLegs = 16, kMostSplits = 64;
  const Speed& speed = pass == Pass::kForward ? kForwardSpeed : kBackwardSpeed;
  const int processors = attribute(cudaDevAttrMultiProcessorCount);
  const int shared = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  const int resident = with_family(
      p, [&](auto family) { return resident_blocks<decltype(family)>(p, pass); });
  const int tiles = ceil_div(static_cast<int64_t>(p.H) * p.W, kTile);
  const double jobs = static_cast<double>(p.B) * p.directions * channel_blocks(p) / processors;
  Cut best;
  double least = 0;
  for (int splits = 1; splits <= std::min(tiles, kMostSplits); ++splits) {
    const int per_split = ceil_div(tiles, splits);
    if (splits > 1 && ceil_div(tiles, per_split) != splits) continue;
    // Of a cut whose launch over so many ranges of each sequence takes rounds(ranges).
    const auto consider = [&](Cut cut, auto rounds) {
      double time = rounds(splits) * per_split;
      if (splits > 1) time += rounds(splits) * kFold * splits + rounds(splits - 1) * speed.extra * per_split;
      if (least > 0 && time > 0.997 * least) return;
      best = cut;
      least = time;
    };
    consider({splits, per_split, 1, per_split, 0}, [&](int ranges) {
      const double blocks = std::ceil(jobs * ranges);
      return blocks / speed(std::min<double>(blocks, resident));
    });
    const int legs = std::min(per_split / kLegTiles, kMostLegs);
    if (legs < 2) continue;
    const int per_leg = ceil_div(per_split, legs);
    for (int places = 1; places <= resident && kFull * places <= jobs * splits; ++places) {
      const Cut cut{splits, per_split, ceil_div(per_split, per_leg), per_leg,
                    places < resident ? shared / (places + 1) : 0};
      consider(cut, [&](int ranges) {
        const double blocks = jobs * ranges;
        return kLegs * blocks / speed(std::min<double>(blocks, places));
      });
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

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace swin_umamba
