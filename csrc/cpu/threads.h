// A loop over tasks on OpenMP's threads, or on the caller's alone where the build has no OpenMP.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(SWIN_UMAMBA_OPENMP)
#include <omp.h>
#endif

namespace swin_umamba::cpu {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char, Free>;

// Aligned for any register. Throws std::bad_alloc.
Memory allocate(int64_t bytes);

// f(task, arena memory) for every task below `tasks`; tasks are taken up as threads become free, so
// f's effects must not depend on who runs it. `bytes` of memory for each thread.
template <class F>
void for_each_task(int64_t tasks, int threads, int64_t bytes, F f) {
  const int64_t stride = (bytes + 4095) / 4096 * 4096 + 64;  // not a power of two apart
  if (threads > tasks) threads = static_cast<int>(tasks);
  const Memory memory = allocate(stride * threads);
#if defined(SWIN_UMAMBA_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1)
  for (int64_t task = 0; task < tasks; ++task) {
    f(task, memory.get() + stride * omp_get_thread_num());
  }
#else
  for (int64_t task = 0; task < tasks; ++task) f(task, memory.get());
#endif
}

}  // namespace swin_umamba::cpu
