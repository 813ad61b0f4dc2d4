// Whole ops: blocks of channels are distributed over threads, and sums over channels have a fixed
// order.
#include <algorithm>
#include <cstring>

#include "cpu.h"
#include "threads.h"

namespace swin_umamba::cpu {
namespace {

// Small enough to stay near the cache; one chunk of one image may need more.
constexpr int64_t kPartsBytes = int64_t(4) << 20;

// What is likely to fit in a core's cache.
constexpr int64_t kCacheBytes = int64_t(1) << 20;

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

// Whether each direction of a block becomes a separate task, which costs a separate output and a
// sum: used if whole blocks would leave threads idle for a tenth of the time or more.
bool directions_apart(int64_t tasks, int threads) {
  const int64_t turns = (tasks + threads - 1) / threads;
  return 10 * tasks < 9 * turns * threads;
}

// How many blocks of channels of an image one forward task takes: several if an image exceeds the
// cache, as long as no thread waits for it.
template <class T>
int64_t blocks_together(const SS2DForward<T>& s, int64_t blocks, int threads) {
  if (s.L() * (s.D + kDirections * s.row()) * int64_t(sizeof(T)) < kCacheBytes) return 1;
  for (int64_t together = kForwardBlocks; together > 1; --together) {
    const int64_t tasks = s.B * (blocks / together), turns = blocks_of(tasks, threads);
    if (blocks % together == 0 && 10 * tasks >= 9 * turns * threads) return together;
  }
  return 1;
}

template <class T>
void add(const T* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

// to[i] = the sum of `blocks` rows at `from`, `stride` apart, in their order.
template <class T>
void sum_rows(const T* from, int64_t stride, int64_t blocks, int64_t count, T* to) {
  std::memcpy(to, from, count * sizeof(T));
  for (int64_t block = 1; block < blocks; ++block) add(from + block * stride, count, to);
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
  const int64_t blocks = blocks_of(s.D, kernel.lanes), tasks = s.B * blocks;
  const int64_t bytes = kernel.working_bytes(s.N, s.R);
  if (!directions_apart(tasks, threads)) {
    const int64_t together = blocks_together(s, blocks, threads);
    const int64_t groups = blocks_of(blocks, together);
    for_each_task<true>(s.B * groups, threads, bytes, [&](int64_t task, char* memory) {
      const int64_t first = task % groups * together;
      kernel.ss2d_forward(
          s, task / groups, first, between(0, blocks - first, together), 0, kDirections,
          Arena(memory));
    });
    return;
  }
  const int64_t size = s.B * s.L() * s.D;
  const Memory others = allocate((kDirections - 1) * size * sizeof(T));
  T* const parts = reinterpret_cast<T*>(others.get());
  for_each_task<true>(tasks * kDirections, threads, bytes, [&](int64_t task, char* memory) {
    const int64_t k = task % kDirections, block = task / kDirections % blocks;
    SS2DForward<T> one = s;
    if (k) one.y = parts + (k - 1) * size;
    kernel.ss2d_forward(one, task / (kDirections * blocks), block, 1, k, k + 1, Arena(memory));
  });
  const int64_t line = s.W * s.D;
  for_each_task<true>(s.B * s.H, threads, 0, [&](int64_t i, char*) {
    for (int64_t k = 1; k < kDirections; ++k) {
      add(parts + (k - 1) * size + i * line, line, s.y + i * line);
    }
  });
}

// Adds up the gradients of x that the directions stored separately (the first one's in dx), each
// position's in the order in which one task for all directions reaches it: by rounds from the last
// chunk on, then by direction.
template <class T>
void merge_dx(const SS2DBackward<T>& s, const T* parts, int64_t chunks_a_round, int threads) {
  const int64_t L = s.L(), size = s.B * L * s.D;
  for_each_task<false>(s.B * s.H, threads, s.D * sizeof(T), [&](int64_t task, char* memory) {
    T* const sum = reinterpret_cast<T*>(memory);
    const int64_t b = task / s.H, i = task % s.H;
    for (int64_t j = 0; j < s.W; ++j) {
      const int64_t rows = i * s.W + j, columns = j * s.H + i;
      const int64_t steps[kDirections] = {rows, columns, L - 1 - rows, L - 1 - columns};
      int64_t order[kDirections];
      for (int64_t k = 0; k < kDirections; ++k) {
        order[k] = (s.C() - 1 - steps[k] / kChunk) / chunks_a_round * kDirections + k;
      }
      std::sort(order, order + kDirections);
      T* const dx = s.dx + (b * L + rows) * s.D;
      std::memset(sum, 0, s.D * sizeof(T));
      for (const int64_t place : order) {
        const int64_t k = place % kDirections;
        add(k ? parts + (k - 1) * size + (b * L + rows) * s.D : dx, s.D, sum);
      }
      std::memcpy(dx, sum, s.D * sizeof(T));
    }
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
  const bool apart = directions_apart(round.images * blocks, threads);
  const int64_t groups = apart ? kDirections : 1, size = s.B * s.L() * s.D;
  const Memory others = zeroed((groups - 1) * size * sizeof(T));
  T* const other_dx = reinterpret_cast<T*>(others.get());

  for (int64_t b0 = 0; b0 < s.B; b0 += round.images) {
    const int64_t images = between(0, s.B - b0, round.images);
    for (int64_t last = C; last > 0; last -= round.chunks) {
      const int64_t first = between(0, last - round.chunks, last), steps = (last - first) * kChunk;
      const int64_t bytes = kernel.working_bytes(s.N, s.R);
      for_each_task<false>(images * blocks * groups, threads, bytes, [&](int64_t task, char* memory) {
        const int64_t group = task % groups, place = task / groups;
        const int64_t b = b0 + place / blocks, block = place % blocks;
        SS2DBackward<T> one = s;
        if (group) one.dx = other_dx + (group - 1) * size;
        kernel.ss2d_backward(
            one, b, block, group, apart ? group + 1 : kDirections, first, last,
            g + (b * blocks + block) * carried, dmaps + place * per_block, Arena(memory));
      });
      const int64_t chunks = last - first;
      for_each_task<false>(images * kDirections * chunks, threads, 0, [&](int64_t task, char*) {
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
  if (apart) merge_dx(s, other_dx, round.chunks, threads);
}

template <class T>
void scan_forward(const ScanForward<T>& s, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const int64_t blocks = blocks_of(s.D / s.G, kernel.lanes), bytes = kernel.working_bytes(s.N, 0);
  for_each_task<true>(s.B * s.G * blocks, threads, bytes, [&](int64_t task, char* memory) {
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
      for_each_task<false>(images * s.G * blocks, threads, bytes, [&](int64_t task, char* memory) {
        const int64_t all = b0 * s.G * blocks + task;
        kernel.scan_backward(
            s, all / (blocks * s.G), task / blocks % s.G, task % blocks, first, last,
            g + all * carried, dmaps + task * per_block, Arena(memory));
      });
      const int64_t chunks = last - first;
      const int64_t tile = kChunk * row * sizeof(T);
      for_each_task<false>(images * s.G * chunks, threads, tile, [&](int64_t task, char* memory) {
        T* const sums = reinterpret_cast<T*>(memory);
        const int64_t group = b0 * s.G + task / chunks, c = task % chunks;
        const int64_t start = (first + c) * kChunk, count = between(0, s.L - start, kChunk);
        const T* from = dmaps + task / chunks * blocks * per_block + c * kChunk * row;
        sum_rows(from, per_block, blocks, count * row, sums);
        // One state after another: their rows in memory are far apart.
        for (int64_t n = 0; n < s.N; ++n) {
          T *dBs = s.dBs + (group * s.N + n) * s.L + start, *dCs = s.dCs + (dBs - s.dBs);
          for (int64_t t = 0; t < count; ++t) {
            dBs[t] = sums[t * row + n];
            dCs[t] = sums[t * row + s.N + n];
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
