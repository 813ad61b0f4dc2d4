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

// Each value shares a word, which is read and written whole, with a number: the warp waits until both numbers are
// `number`. A vote rather than a branch of each lane's, after which lanes would have to meet again.
__device__ inline float2 receive(uint32_t from, int number) {
  float2 v;
  int numbers[2];
  do {
    asm volatile(
        "{\n\t.reg .b64 x, y;\n\tld.volatile.shared.v2.b64 {x, y}, [%4];\n\t"
        "mov.b64 {%0, %1}, x;\n\tmov.b64 {%2, %3}, y;\n\t}"
        : "=f"(v.x), "=r"(numbers[0]), "=f"(v.y), "=r"(numbers[1])
        : "r"(from)
        : "memory");
  } while (__any_sync(~0u, numbers[0] != number || numbers[1] != number));
  return v;
}

// Where a value is put: in this block's shared memory, or in that of another block of the cluster.
struct Destination {
  uint64_t address;  // generic
  int is_own, is_other;  // neither in lanes that put nothing

  // `to` lies in the rank-th block as in this one. What is computed here is not put off to where it is used, while
  // another warp waits.
  __device__ Destination(float4* to, bool puts, bool leaves, int rank) {
    address = reinterpret_cast<uint64_t>(to);
#if __CUDA_ARCH__ >= 900
    if (leaves) asm volatile("mapa.u64 %0, %0, %1;" : "+l"(address) : "r"(rank));
#endif
    is_own = puts && !leaves;
    is_other = puts && leaves;
    asm volatile("" : "+l"(address), "+r"(is_own), "+r"(is_other));
  }

  __device__ void put(float2 v, int number) const {
#if __CUDA_ARCH__ >= 900
    if (is_other) {
      asm volatile(
          "{\n\t.reg .b64 x, y;\n\tmov.b64 x, {%1, %3};\n\tmov.b64 y, {%2, %3};\n\t"
          "st.relaxed.cluster.v2.b64 [%0], {x, y};\n\t}" ::"l"(address), "f"(v.x), "f"(v.y), "r"(number)
          : "memory");
    }
#endif
    if (is_own) {
      asm volatile(
          "{\n\t.reg .b64 x, y, to;\n\tcvta.to.shared.u64 to, %0;\n\t"
          "mov.b64 x, {%1, %3};\n\tmov.b64 y, {%2, %3};\n\t"
          "st.volatile.shared.v2.b64 [to], {x, y};\n\t}" ::"l"(address), "f"(v.x), "f"(v.y), "r"(number)
          : "memory");
    }
  }
};

}  // namespace swin_umamba
