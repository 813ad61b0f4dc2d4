// The families of kernels as types: tags, each instantiated in a file of its own (instantiations/), and
// the choice of one for a set of parameters.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

#include "launch.h"

namespace swin_umamba {

struct Float32 {};
struct Float16 {};
struct BFloat16 {};

template <int N>
struct Strided { using Params = StridedParams; };
template <int N, class T>
struct Sequence { using Params = StridedParams; };
template <int N, class T, bool kPieces = false>  // whether rows of proj are whole pieces of 16 bytes
struct Image { using Params = ImageParams; };
template <class T, int RB>  // blocks of 8 ranks; 0 where delta is given
struct OneState { using Params = OneStateParams; };

template <class Tag>
void launch_family(const typename Tag::Params& p, Pass pass, void* stream);
template <class Tag>
int resident_blocks(const typename Tag::Params& p, Pass pass);  // of one multiprocessor
template <class Tag>
int resident_clusters(const typename Tag::Params& p, Pass pass);  // of the device
template <class Tag>
int family_shared_bytes(const typename Tag::Params& p);
template <class Tag>
int family_channel_blocks(const typename Tag::Params& p);

[[noreturn]] inline void no_kernel(const ScanParams& p) {
  throw std::invalid_argument(
      "no kernel of family " + std::to_string(static_cast<int>(p.family)) + " for dtype " +
      std::to_string(p.dtype) + ", N = " + std::to_string(p.N));
}

// Calls f(tag, parameters of its type) with the tag of the kernels that serve p.
template <class F>
auto with_family(const ScanParams& p, F f) {
  const auto call = [&](auto tag) { return f(tag, static_cast<const typename decltype(tag)::Params&>(p)); };
  const auto image = [&](auto type) {
    using T = decltype(type);
    switch (p.N) {
      case 4: return call(Image<4, T>{});
      case 8: return call(Image<8, T>{});
      case 16:
        if constexpr (!std::is_same_v<T, Float32>) {
          if (p.R % 8 == 0) return call(Image<16, T, true>{});
        }
        return call(Image<16, T>{});
      case 32: return call(Image<32, T>{});
      case 64: return call(Image<64, T>{});
    }
    no_kernel(p);
  };
  const auto one_state_image = [&](auto type) {
    using T = decltype(type);
    if (p.R <= 8) return call(OneState<T, 1>{});
    if (p.R <= 16) return call(OneState<T, 2>{});
    if (p.R <= 24) return call(OneState<T, 3>{});
    if constexpr (!std::is_same_v<T, Float32>) {
      if (p.R <= 48) return call(OneState<T, 6>{});
    }
    no_kernel(p);
  };
  switch (p.family) {
    case Family::kStrided:
      if (p.N <= 1) return call(Strided<1>{});
      if (p.N <= 4) return call(Strided<4>{});
      if (p.N <= 8) return call(Strided<8>{});
      if (p.N <= 16) return call(Strided<16>{});
      if (p.N <= 32) return call(Strided<32>{});
      if (p.N <= 64) return call(Strided<64>{});
      if (p.N <= kMaxStates) return call(Strided<kMaxStates>{});
      break;
    case Family::kSequence:
      if (p.dtype == kFloat16) return call(Sequence<16, Float16>{});
      if (p.dtype == kBFloat16) return call(Sequence<16, BFloat16>{});
      return call(Sequence<16, Float32>{});
    case Family::kImage:
      if (p.dtype == kFloat16) return image(Float16{});
      if (p.dtype == kBFloat16) return image(BFloat16{});
      return image(Float32{});
    case Family::kOneState:
      if (p.dtype == kFloat16) return call(OneState<Float16, 0>{});
      if (p.dtype == kBFloat16) return call(OneState<BFloat16, 0>{});
      return call(OneState<Float32, 0>{});
    case Family::kOneStateImage:
      if (p.dtype == kFloat16) return one_state_image(Float16{});
      if (p.dtype == kBFloat16) return one_state_image(BFloat16{});
      return one_state_image(Float32{});
  }
  no_kernel(p);
}

}  // namespace swin_umamba
