// Compiles the kernels for the instruction set that the including file was given flags for:
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

// The most that a task takes from its arena, with the rounding of every piece.
template <class T>
int64_t working_bytes(int64_t N, int64_t R) {
  const int64_t padded_R = DirectionGradients<T>::padded(R);
  const int64_t elements = 2 * kChunk * N + kLanes<T> * (4 * N + 2 * R + padded_R);
  return int64_t(sizeof(GradientTile<T>)) + elements * int64_t(sizeof(T)) + 16 * 64;
}

// f on `count` numbers, which need not fill the last vector.
template <class T, class F>
void for_each_vector(int64_t count, F f) {
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    f(i, count - i < kLanes<T> ? count - i : int64_t(kLanes<T>));
  }
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
