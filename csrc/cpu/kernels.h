// The kernels compiled for one instruction set: what a file kernels_*.cpp offers to the dispatcher.
#pragma once

#include <cstdint>

#include "params.h"

namespace swin_umamba::cpu {

// Hands out aligned pieces of one thread's working memory; copied by value, so each task starts
// from the beginning again.
class Arena {
 public:
  explicit Arena(char* memory) : next_(memory) {}
  // Always inlined: an out-of-line copy might be the one compiled for a newer machine.
  template <class T>
  __attribute__((always_inline)) T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }

 private:
  char* next_;
};

// The maximum number of blocks of channels that one call of ss2d_forward takes.
constexpr int64_t kForwardBlocks = 6;

// Functions on one block of `lanes` channels (block: its number among those of an image or, in the
// one-dimensional scan, of a group of channels).
template <class T>
struct Kernels {
  int64_t lanes;
  int64_t (*working_bytes)(int64_t N, int64_t R);
  void (*ss2d_forward)(
      const SS2DForward<T>&, int64_t b, int64_t block, int64_t blocks, int64_t first_k,
      int64_t last_k, Arena);
  void (*ss2d_backward)(
      const SS2DBackward<T>&, int64_t b, int64_t block, int64_t first_k, int64_t last_k,
      int64_t first_chunk, int64_t last_chunk, T* g, T* dmaps, Arena);
  void (*scan_forward)(const ScanForward<T>&, int64_t b, int64_t group, int64_t block, Arena);
  void (*scan_backward)(
      const ScanBackward<T>&, int64_t b, int64_t group, int64_t block, int64_t first_chunk,
      int64_t last_chunk, T* g, T* dmaps, Arena);
  // For tests: elementwise over `count` numbers.
  void (*exp2)(const T* x, T* y, int64_t count);
  void (*exp)(const T* x, T* y, int64_t count);
  void (*softplus)(const T* x, T* y, T* derivative, int64_t count);
};

// Defined where the file for the instruction set is part of the build.
extern const Kernels<float> k_base_f32, k_avx2_f32, k_avx512_f32;
extern const Kernels<double> k_base_f64, k_avx2_f64, k_avx512_f64;

}  // namespace swin_umamba::cpu
