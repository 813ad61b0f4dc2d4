// A loop over tasks on OpenMP's threads, or on the caller's only if the build has no OpenMP.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(SWIN_UMAMBA_OPENMP)
#include <omp.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif

namespace swin_umamba::cpu {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char, Free>;

// Aligned for any register. Throws std::bad_alloc.
Memory allocate(int64_t bytes);

// While it exists, this thread treats numbers below the smallest normal one (1e-38, 2e-308) as
// zero. A state that decays with zero input ends among them, may stay there (0.99 times the
// smallest rounds to itself), and would slow down every later step a hundredfold.
class FlushSubnormals {
 public:
  explicit FlushSubnormals(bool on) : before_(control()) {
    if (on) set_control(before_ | kBits);
  }
  ~FlushSubnormals() { set_control(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__x86_64__) || defined(__i386__)
  static constexpr uint64_t kBits = 0x8040;  // flush results, treat operands as zero
  static uint64_t control() { return _mm_getcsr(); }
  static void set_control(uint64_t bits) { _mm_setcsr(static_cast<unsigned>(bits)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kBits = uint64_t(1) << 24;
  static uint64_t control() {
    uint64_t bits;
    asm volatile("mrs %0, fpcr" : "=r"(bits));
    return bits;
  }
  static void set_control(uint64_t bits) { asm volatile("msr fpcr, %0" : : "r"(bits)); }
#else
  static constexpr uint64_t kBits = 0;
  static uint64_t control() { return 0; }
  static void set_control(uint64_t) {}
#endif
  uint64_t before_;
};

// f(task, arena memory) for every task below `tasks`; tasks go to whichever thread is free, so
// f must not depend on which one runs it. `bytes` of memory for each thread. kFlush: forward
// only, since gradients with respect to A of steps near 0 are subnormal themselves.
template <bool kFlush, class F>
void for_each_task(int64_t tasks, int threads, int64_t bytes, F f) {
  const int64_t stride = (bytes + 4095) / 4096 * 4096 + 64;  // not a power of two apart
  if (threads > tasks) threads = static_cast<int>(tasks);
  const Memory memory = allocate(stride * threads);
#if defined(SWIN_UMAMBA_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1)
  for (int64_t task = 0; task < tasks; ++task) {
    const FlushSubnormals flush(kFlush);
    f(task, memory.get() + stride * omp_get_thread_num());
  }
#else
  const FlushSubnormals flush(kFlush);
  for (int64_t task = 0; task < tasks; ++task) f(task, memory.get());
#endif
}

}  // namespace swin_umamba::cpu
