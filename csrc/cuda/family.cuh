// Launches one family of kernels. Included by the files that instantiate one family each.
#pragma once

#include <algorithm>

#include "backward.cuh"
#include "check.cuh"
#include "forward.cuh"
#include "given.cuh"
#include "image.cuh"
#include "launch.h"
#include "sequence.cuh"

namespace swin_umamba {

template <class Tag>
struct Value;
template <>
struct Value<Float> { using type = float; };
template <>
struct Value<Half> { using type = __half; };
template <>
struct Value<BFloat16> { using type = __nv_bfloat16; };

template <class Family, Walk kWalk>
struct SourceOf;
template <int N, Walk kWalk>
struct SourceOf<Given<N>, kWalk> { using type = GivenSource<Mapping<N>, kWalk>; };
template <int N, class T, bool kPieces, Walk kWalk>
struct SourceOf<Image<N, T, kPieces>, kWalk> {
  using type = ImageSource<Mapping<N>, typename Value<T>::type, kPieces, kWalk>;
};
template <int N, class T, Walk kWalk>
struct SourceOf<Sequence<N, T>, kWalk> {
  using type = SequenceSource<Mapping<N>, typename Value<T>::type, kWalk>;
};

// Calls f(kernel, threads, shared bytes) for the kernel that makes the pass.
template <class Family, class F>
void with_kernel(const ScanParams& p, Pass pass, F f) {
  using Forward = typename SourceOf<Family, Walk::kForward>::type;
  using Carry = typename SourceOf<Family, Walk::kCarry>::type;
  using Backward = typename SourceOf<Family, Walk::kBackward>::type;
  using M = typename Forward::M;
  const int stages = M::kStages * Stage<M, false>::kFloats * 4;
  switch (pass) {
    case Pass::kForward:
      return f(forward_kernel<Forward, true>, 2 * M::kThreads, stages + Forward::shared_bytes(p));
    case Pass::kForwardSplits:
      return f(forward_kernel<Forward, false>, 2 * M::kThreads, stages + Forward::shared_bytes(p));
    case Pass::kBackward:
      return f(backward_kernel<Backward>, M::kThreads,
               Stage<M, true>::kFloats * 4 + M::kWarps * GradientTile<M>::kFloats * 4 + Backward::shared_bytes(p));
    case Pass::kBackwardSplits:
      return f(forward_kernel<Carry, false>, 2 * M::kThreads, stages + Carry::shared_bytes(p));
  }
}

template <class Family>
void launch_family(const ScanParams& p, Pass pass, void* stream) {
  with_kernel<Family>(p, pass, [&](auto kernel, int threads, int bytes) {
    bytes = std::max<int>(bytes, p.least_shared);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "preparing the scan kernel");
    const bool whole = pass == Pass::kForward || pass == Pass::kBackward;
    const int splits = whole ? p.splits : p.splits - 1;
    const int64_t sequences = static_cast<int64_t>(p.B) * p.directions * p.blocks;
    ScanParams own = p;
    if (!whole && p.legs > 1) own.leg_turns += leg_counters(sequences * p.splits);
    const auto grid = static_cast<unsigned>(sequences * splits * p.legs);
    kernel<<<grid, threads, bytes, static_cast<cudaStream_t>(stream)>>>(own);
    check(cudaGetLastError(), "launching the scan kernel");
  });
}

template <class Family>
int resident_blocks(const ScanParams& p, Pass pass) {
  int blocks = 0;
  with_kernel<Family>(p, pass, [&](auto kernel, int threads, int bytes) {
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
    with_kernel<Family>(p, pass, [&](auto, int, int bytes) { most = std::max(most, bytes + kTurn); });
  }
  return most;
}

template <class Family>
int family_channel_blocks(const ScanParams& p) {
  return channel_blocks<typename SourceOf<Family, Walk::kForward>::type::M>(p);
}

#define SWIN_UMAMBA_INSTANTIATE(...)                                             \
  template void launch_family<__VA_ARGS__>(const ScanParams&, Pass, void*);      \
  template int resident_blocks<__VA_ARGS__>(const ScanParams&, Pass);            \
  template int family_shared_bytes<__VA_ARGS__>(const ScanParams&);              \
  template int family_channel_blocks<__VA_ARGS__>(const ScanParams&);

}  // namespace swin_umamba
