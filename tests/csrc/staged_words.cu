// The protocol between the warps of a scan kernel that stage tiles and those that scan them, alone: half of a
// block's warps store a word each to one of two stages and arrive at the stage's named barrier, the other half wait
// there, load the words and arrive at a second barrier, at which the first half wait before they overwrite the stage.
// By PTX's rules bar.sync of one half after bar.arrive of the other orders their accesses to shared memory, and both
// halves use every barrier in turns, so that there is no race. Every word is checked: half of the turns the one half
// is late, half of the turns the other. compute-sanitizer's racecheck reports hazards all the same where a half has
// several warps, and none where it has one.
//
// staged_words WARPS: of each half. Ends with 0 where every word was the expected one.
#include <cstdio>
#include <cstdlib>

#include "barrier.cuh"

namespace {

constexpr int kStages = 2, kTurns = 64;
enum Barrier { kStaged = 1, kScanned = 3 };

__device__ int word(int turn, int thread) { return 1000 * turn + thread; }

template <int kHalf>  // threads of each half
__global__ void staged_words(int* wrong) {
  using namespace swin_umamba;
  __shared__ int stages[kStages][kHalf];
  const int thread = threadIdx.x % kHalf;
  for (int turn = 0; turn < kTurns; ++turn) {
    const int stage = turn % kStages;
    if (threadIdx.x >= kHalf) {
      if (turn >= kStages) barrier_sync<kScanned, 2 * kHalf>(stage);
      if (turn / kStages % 2 == 0) __nanosleep(2000 + 50 * (thread / 32));
      stages[stage][thread] = word(turn, thread);
      barrier_arrive<kStaged, 2 * kHalf>(stage);
    } else {
      barrier_sync<kStaged, 2 * kHalf>(stage);
      if (turn / kStages % 2 == 1) __nanosleep(2000 + 50 * (thread / 32));
      const int other = (thread + 32) % kHalf;  // of another warp, where there is one
      if (stages[stage][other] != word(turn, other)) atomicAdd(wrong, 1);
      barrier_arrive<kScanned, 2 * kHalf>(stage);
    }
  }
  // Those of the last stages, so that every arrival has been waited for.
  if (threadIdx.x >= kHalf) {
    for (int stage = 0; stage < kStages; ++stage) barrier_sync<kScanned, 2 * kHalf>(stage);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int warps = argc > 1 ? std::atoi(argv[1]) : 4;
  int *wrong = nullptr, found = -1;
  if (cudaMalloc(&wrong, sizeof(int)) != cudaSuccess || cudaMemset(wrong, 0, sizeof(int)) != cudaSuccess) return 2;
  if (warps == 1) {
    staged_words<32><<<2, 64>>>(wrong);
  } else {
    staged_words<128><<<2, 256>>>(wrong);
  }
  if (cudaMemcpy(&found, wrong, sizeof(int), cudaMemcpyDeviceToHost) != cudaSuccess) return 2;
  std::printf("%d words were not the expected ones\n", found);
  return found != 0;
}
