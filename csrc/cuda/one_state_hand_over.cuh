// How the one-state kernels hand states from warp to warp, in a block or between blocks of a cluster: by one store to
// the shared memory of the warp that waits for it.
#pragma once

#include "matrix.cuh"

namespace swin_umamba {

// Waits for all threads of the cluster, or of the block if it is one alone.
__device__ inline void sync_blocks(int blocks) {
#if __CUDA_ARCH__ >= 900
  if (blocks > 1) {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    return;
  }
#endif
  __syncthreads();
}

// Each value shares a word, which is read and written whole, with a number: waits until both numbers are `number`.
__device__ inline float2 receive(const float4* from, int number) {
  float2 v;
  int numbers[2];
  do {
    asm volatile(
        "{\n\t.reg .b64 x, y;\n\tld.volatile.shared.v2.b64 {x, y}, [%4];\n\t"
        "mov.b64 {%0, %1}, x;\n\tmov.b64 {%2, %3}, y;\n\t}"
        : "=f"(v.x), "=r"(numbers[0]), "=f"(v.y), "=r"(numbers[1])
        : "r"(shared_address(from))
        : "memory");
  } while (numbers[0] != number || numbers[1] != number);
  return v;
}

__device__ inline void send_to_warp(float4* to, float2 v, int number) {
  asm volatile(
      "{\n\t.reg .b64 x, y;\n\tmov.b64 x, {%1, %3};\n\tmov.b64 y, {%2, %3};\n\t"
      "st.volatile.shared.v2.b64 [%0], {x, y};\n\t}" ::"r"(shared_address(to)),
      "f"(v.x), "f"(v.y), "r"(number)
      : "memory");
}

// The same to the shared memory of the cluster's rank-th block, at the same place as in this one's.
__device__ inline void send_to_block(float4* to, int rank, float2 v, int number) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n\t.reg .b32 to;\n\t.reg .b64 x, y;\n\tmapa.shared::cluster.u32 to, %0, %1;\n\t"
      "mov.b64 x, {%2, %4};\n\tmov.b64 y, {%3, %4};\n\t"
      "st.relaxed.cluster.shared::cluster.v2.b64 [to], {x, y};\n\t}" ::"r"(shared_address(to)),
      "r"(rank), "f"(v.x), "f"(v.y), "r"(number)
      : "memory");
#endif
}

}  // namespace swin_umamba
