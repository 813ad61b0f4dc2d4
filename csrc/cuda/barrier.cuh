// Barriers among some warps of a block: those that stage a tile and those that scan it. Barrier 0 is
// __syncthreads.
#pragma once

namespace swin_umamba {

// Waits until `threads` threads have come to the barrier, by either function.
__device__ inline void barrier_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Comes to the barrier and goes on.
__device__ inline void barrier_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

}  // namespace swin_umamba
