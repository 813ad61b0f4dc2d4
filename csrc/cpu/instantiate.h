// Compiles the kernels for the instruction set whose compiler flags the including file has:
// SWIN_UMAMBA_ISA names its namespace, SWIN_UMAMBA_VECTOR_BYTES its registers' size.
#include <cstdint>
#include <utility>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "kernels.h"

namespace swin_umamba::cpu::SWIN_UMAMBA_ISA {

#include "vec.h"
// vec.h first: each uses the one before.
#include "vec_math.h"
#include "tile.h"
#include "ss2d.h"
#include "selective_scan.h"

// The maximum that a task takes from its arena, with the rounding of every piece.
template <class T>
int64_t working_bytes(int64_t N, int64_t R) {
  const int64_t padded_R = DirectionGradients<T>::padded(R);
  const int64_t forward = kForwardBlocks * kLanes<T> * (2 * N + R);
  const int64_t backward = kLanes<T> * (4 * N + 2 * R + padded_R);
  const int64_t elements = kChunk * (2 * N + R) + (forward > backward ? forward : backward);
  return int64_t(sizeof(GradientTile<T>)) + elements * int64_t(sizeof(T)) + 32 * 64;
}

template <class T>
void exp2_all(const T* x, T* y, int64_t count) {
  for_each_vector<T>(count, [=](int64_t i, int64_t lanes) {
    store_part(y + i, exp2<T>(load_part(x + i, lanes)), lanes);
  });
}

template <class T>
void exp_all(const T* x, T* y, int64_t count) {
  for_each_vector<T>(count, [=](int64_t i, int64_t lanes) {
    store_part(y + i, exp<T>(load_part(x + i, lanes)), lanes);
  });
}

template <class T>
void softplus_all(const T* x, T* y, T* derivative, int64_t count) {
  for_each_vector<T>(count, [=](int64_t i, int64_t lanes) {
    const Softplus<T> result = softplus<T>(load_part(x + i, lanes));
    store_part(y + i, result.value, lanes);
    store_part(derivative + i, result.derivative, lanes);
  });
}

template <class T>
constexpr Kernels<T> kernels() {
  return {kLanes<T>,      working_bytes<T>, ss2d_forward<T>, ss2d_backward<T>, scan_forward<T>,
          scan_backward<T>, exp2_all<T>,      exp_all<T>,      softplus_all<T>};
}

}  // namespace swin_umamba::cpu::SWIN_UMAMBA_ISA
