// Barriers among some warps of a block: those that stage a tile and those that scan it. Barrier 0 is
// __syncthreads. Their numbers are constants: with one from a register the hardware's tools, racecheck
// among them, take all sixteen to be in use.
#pragma once

namespace swin_umamba {

// Waits until kThreads threads have come to the barrier, by either function.
template <int kBarrier, int kThreads>
__device__ inline void barrier_sync() {
  asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "n"(kThreads) : "memory");
}

// Comes to the barrier and goes on.
template <int kBarrier, int kThreads>
__device__ inline void barrier_arrive() {
  asm volatile("bar.arrive %0, %1;" ::"n"(kBarrier), "n"(kThreads) : "memory");
}

// The same at one of two barriers, kFirst and the next, which take turns.
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
