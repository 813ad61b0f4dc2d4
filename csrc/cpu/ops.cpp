// Whole ops: blocks of channels dealt to threads, and sums over channels in a fixed order.
//
// The forward needs no sums across blocks. In the backward every block has its own part of the
// gradients of the maps (Bs, Cs and, in ss2d, dt's first factor); the parts of all steps would take
// many times the memory of the input, so the steps are gone through in rounds: all blocks, then the
// sum over blocks, then the next round with the same memory.
#include <cstring>

#include "cpu.h"
#include "threads.h"

namespace swin_umamba::cpu {
namespace {

// Small enough to stay near the cache; one chunk of one image may need more.
constexpr int64_t kPartsBytes = int64_t(4) << 20;

int64_t blocks_of(int64_t channels, int64_t lanes) { return (channels + lanes - 1) / lanes; }

int64_t between(int64_t low, int64_t value, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

// How many images and chunks a round takes, given the bytes of one chunk of one image.
struct Rounds {
  int64_t images, chunks;
  Rounds(int64_t chunk_bytes, int64_t B, int64_t C)
      : images(between(1, kPartsBytes / chunk_bytes, B)),
        chunks(between(1, kPartsBytes / (chunk_bytes * images), C)) {}
};

// to[i] = the sum of `blocks` rows at `from`, `stride` apart, in their order.
template <class T>
void sum_rows(const T* from, int64_t stride, int64_t blocks, int64_t count, T* to) {
  std::memcpy(to, from, count * sizeof(T));
  for (int64_t block = 1; block < blocks; ++block) {
    const T* row = from + block * stride;
    for (int64_t i = 0; i < count; ++i) to[i] += row[i];
  }
}

// Steps to positions, as in ss2d.h, one at a time.
int64_t position(int64_t k, int64_t H, int64_t W, int64_t step) {
  const int64_t m = k >= 2 ? H * W - 1 - step : step;
  return k % 2 ? m % H * W + m / H : m;
}

Memory zeroed(int64_t bytes) {
  Memory memory = allocate(bytes);
  std::memset(memory.get(), 0, bytes);
  return memory;
}

}  // namespace

Memory allocate(int64_t bytes) {
  Memory memory(static_cast<char*>(std::aligned_alloc(64, bytes / 64 * 64 + 64)));
  if (!memory) throw std::bad_alloc();
  return memory;
}

template <class T>
void ss2d_forward(const SS2DForward<T>& s, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const int64_t blocks = blocks_of(s.D, kernel.lanes);
  const int64_t bytes = kernel.working_bytes(s.N, s.R);
  for_each_task(s.B * blocks, threads, bytes, [&](int64_t task, char* memory) {
    kernel.ss2d_forward(s, task / blocks, task % blocks, Arena(memory));
  });
}

template <class T>
void ss2d_backward(const SS2DBackward<T>& s, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const int64_t blocks = blocks_of(s.D, kernel.lanes), C = s.C(), row = s.row();
  const int64_t per_chunk = blocks * kDirections * kChunk * row;
  const Rounds round(per_chunk * sizeof(T), s.B, C);
  const int64_t per_block = kDirections * round.chunks * kChunk * row;  // of parts
  const int64_t carried = kDirections * s.N * kernel.lanes;             // numbers per block
  const Memory parts = allocate(round.images * blocks * per_block * sizeof(T));
  const Memory carry = zeroed(s.B * blocks * carried * sizeof(T));
  T* const dmaps = reinterpret_cast<T*>(parts.get());
  T* const g = reinterpret_cast<T*>(carry.get());

  for (int64_t b0 = 0; b0 < s.B; b0 += round.images) {
    const int64_t images = between(0, s.B - b0, round.images);
    for (int64_t last = C; last > 0; last -= round.chunks) {
      const int64_t first = between(0, last - round.chunks, last), steps = (last - first) * kChunk;
      const int64_t bytes = kernel.working_bytes(s.N, s.R);
      for_each_task(images * blocks, threads, bytes, [&](int64_t task, char* memory) {
        const int64_t b = b0 + task / blocks, block = task % blocks;
        kernel.ss2d_backward(
            s, b, block, first, last, g + (b * blocks + block) * carried, dmaps + task * per_block,
            Arena(memory));
      });
      const int64_t chunks = last - first;
      for_each_task(images * kDirections * chunks, threads, 0, [&](int64_t task, char*) {
        const int64_t image = task / (kDirections * chunks), k = task / chunks % kDirections;
        const int64_t c = task % chunks;
        const T* from = dmaps + image * blocks * per_block + (k * steps + c * kChunk) * row;
        for (int64_t t = 0; t < kChunk; ++t) {
          const int64_t step = (first + c) * kChunk + t;
          if (step >= s.L()) break;
          const int64_t p = (b0 + image) * s.L() + position(k, s.H, s.W, step);
          sum_rows(from + t * row, per_block, blocks, row, s.dproj + (p * kDirections + k) * row);
        }
      });
    }
  }
}

template <class T>
void scan_forward(const ScanForward<T>& s, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const int64_t blocks = blocks_of(s.D / s.G, kernel.lanes), bytes = kernel.working_bytes(s.N, 0);
  for_each_task(s.B * s.G * blocks, threads, bytes, [&](int64_t task, char* memory) {
    const int64_t group = task / blocks % s.G;
    kernel.scan_forward(s, task / (blocks * s.G), group, task % blocks, Arena(memory));
  });
}

template <class T>
void scan_backward(const ScanBackward<T>& s, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const int64_t blocks = blocks_of(s.D / s.G, kernel.lanes), C = s.C(), row = s.row();
  const Rounds round(s.G * blocks * kChunk * row * sizeof(T), s.B, C);
  const int64_t per_block = round.chunks * kChunk * row, carried = s.N * kernel.lanes;
  const Memory parts = allocate(round.images * s.G * blocks * per_block * sizeof(T));
  const Memory carry = zeroed(s.B * s.G * blocks * carried * sizeof(T));
  T* const dmaps = reinterpret_cast<T*>(parts.get());
  T* const g = reinterpret_cast<T*>(carry.get());

  for (int64_t b0 = 0; b0 < s.B; b0 += round.images) {
    const int64_t images = between(0, s.B - b0, round.images);
    for (int64_t last = C; last > 0; last -= round.chunks) {
      const int64_t first = between(0, last - round.chunks, last);
      const int64_t bytes = kernel.working_bytes(s.N, 0);
      for_each_task(images * s.G * blocks, threads, bytes, [&](int64_t task, char* memory) {
        const int64_t all = b0 * s.G * blocks + task;
        kernel.scan_backward(
            s, all / (blocks * s.G), task / blocks % s.G, task % blocks, first, last,
            g + all * carried, dmaps + task * per_block, Arena(memory));
      });
      const int64_t chunks = last - first;
      const int64_t one_row = row * sizeof(T);
      for_each_task(images * s.G * chunks, threads, one_row, [&](int64_t task, char* memory) {
        T* const sum = reinterpret_cast<T*>(memory);
        const int64_t group = b0 * s.G + task / chunks, c = task % chunks;
        const T* from = dmaps + task / chunks * blocks * per_block + c * kChunk * row;
        for (int64_t t = 0; t < kChunk; ++t) {
          const int64_t step = (first + c) * kChunk + t;
          if (step >= s.L) break;
          sum_rows(from + t * row, per_block, blocks, row, sum);
          for (int64_t n = 0; n < s.N; ++n) {
            s.dBs[(group * s.N + n) * s.L + step] = sum[n];
            s.dCs[(group * s.N + n) * s.L + step] = sum[s.N + n];
          }
        }
      });
    }
  }
}

bool has_openmp() {
#if defined(SWIN_UMAMBA_OPENMP)
  return true;
#else
  return false;
#endif
}

template void ss2d_forward(const SS2DForward<float>&, int);
template void ss2d_forward(const SS2DForward<double>&, int);
template void ss2d_backward(const SS2DBackward<float>&, int);
template void ss2d_backward(const SS2DBackward<double>&, int);
template void scan_forward(const ScanForward<float>&, int);
template void scan_forward(const ScanForward<double>&, int);
template void scan_backward(const ScanBackward<float>&, int);
template void scan_backward(const ScanBackward<double>&, int);

}  // namespace swin_umamba::cpu
