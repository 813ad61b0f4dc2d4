// The producer-consumer protocol of the scan kernels in isolation. Producer warps store one word each to one of two
// stages and arrive at the stage's named barrier. Consumer warps wait there, load the words, and arrive at a second
// barrier, where the producers wait before they overwrite the stage. In PTX, bar.sync after another warp's bar.arrive
// orders their accesses to shared memory, and every barrier is used by both sides in each turn, so there is no race.
// Every word is checked, with the producers delayed in half of the turns and the consumers in the others.
// compute-sanitizer's racecheck nevertheless reports hazards with several warps per side, and none with one.
//
// staged_words WARPS: number of producer warps, and of consumer warps. Exits with 0 if every word was as expected.
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
