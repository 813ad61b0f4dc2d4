// Matrix and asynchronous copy instructions (compute capability 8.0 and up).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace swin_umamba {

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Copies kBytes to shared memory without passing through registers; zeros where !valid.
template <int kBytes>
__device__ inline void copy_async(void* shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
  const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
                 "l"(global), "n"(kBytes), "r"(bytes)
                 : "memory");
  }
#endif
}

__device__ inline void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Where `wanted`; else shared memory stays as it is. Zeros by copy_async() cost several instructions more.
template <int kBytes>
__device__ inline void copy_async_if(bool wanted, void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  if constexpr (kBytes == 16) {
    asm volatile(
        "{\n\t.reg .pred q;\n\tsetp.ne.s32 q, %2, 0;\n\t@q cp.async.cg.shared.global [%0], [%1], 16;\n\t}" ::"r"(
            shared_address(shared)),
        "l"(global), "r"(static_cast<int>(wanted))
        : "memory");
  } else {
    asm volatile(
        "{\n\t.reg .pred q;\n\tsetp.ne.s32 q, %2, 0;\n\t@q cp.async.ca.shared.global [%0], [%1], %3;\n\t}" ::"r"(
            shared_address(shared)),
        "l"(global), "r"(static_cast<int>(wanted)), "n"(kBytes)
        : "memory");
  }
#endif
}

// Closes a group of the copies started so far; waits until at most kGroups are in flight.
__device__ inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int kGroups>
__device__ inline void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
#endif
}

// kBlocks 8x8 blocks of 16-bit values, row addresses from lanes 0 to 8 * kBlocks - 1. Untransposed,
// lane 4i+j holds columns 2j, 2j+1 of row i; transposed, rows 2j, 2j+1 of column i.
template <bool kTransposed>
__device__ inline void load_blocks(uint32_t (&r)[1], const void* row) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

template <bool kTransposed>
__device__ inline void load_blocks(uint32_t (&r)[2], const void* row) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

template <bool kTransposed>
__device__ inline void load_blocks(uint32_t (&r)[4], const void* row) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

// An 8x8 block of 16-bit values in lanes as load_blocks<false>() gives it, to that of load_blocks<true>().
__device__ inline uint32_t transposed(uint32_t block) {
#if __CUDA_ARCH__ >= 800
  uint32_t turned;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(block));
  return turned;
#else
  return block;
#endif
}

// c (16x8, float32) += a (16x8) @ b (8x8). Lane 4i+j holds rows i and i+8, columns 2j and 2j+1 of c.
template <class T>
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[2], const uint32_t (&b)[1]);

template <>
__device__ inline void multiply_add<__half>(float (&c)[4], const uint32_t (&a)[2],
                                            const uint32_t (&b)[1]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#endif
}

template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[2],
                                                   const uint32_t (&b)[1]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#endif
}

// Truncating a float32 factor to TF32, 10 bits of mantissa, makes it smaller by this fraction on average
// (its logarithm uniformly distributed): 2^-11 / (2 ln 2).
constexpr float kTruncationLoss = 0.72134752f / 2048;

// The same of float32 values, truncated to TF32, from registers: lane 4i+j holds a's rows i and i+8 of column
// j, then of column j+4, and rows j and j+4 of b's column i.
__device__ inline void multiply_add(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#endif
}

}  // namespace swin_umamba
