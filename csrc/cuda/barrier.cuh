// Named barriers between the warps of a block that stage a tile and those that scan it. Barrier 0 is
// __syncthreads. Their numbers are constants: with a number from a register, tools such as racecheck
// assume that all sixteen barriers are in use.
#pragma once

namespace swin_umamba {

// Waits until kThreads threads have arrived at the barrier, by either function.
template <int kBarrier, int kThreads>
__device__ inline void barrier_sync() {
  asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "n"(kThreads) : "memory");
}

// Arrives without waiting.
template <int kBarrier, int kThreads>
__device__ inline void barrier_arrive() {
  asm volatile("bar.arrive %0, %1;" ::"n"(kBarrier), "n"(kThreads) : "memory");
}

// The same at one of two alternating barriers, kFirst and the next.
template <int kFirst, int kThreads>
__device__ inline void barrier_sync(int turn) {
  if (turn == 0) {
    barrier_sync<kFirst, kThreads>();
  } else {
    barrier_sync<kFirst + 1, kThreads>();
  }
}
template <int kFirst, int kThreads>
__device__ inline void barrier_arrive(int turn) {
  if (turn == 0) {
    barrier_arrive<kFirst, kThreads>();
  } else {
    barrier_arrive<kFirst + 1, kThreads>();
  }
}

}  // namespace swin_umamba
