// Which instruction set's kernels run.
#include <atomic>
#include <stdexcept>

#include "cpu.h"

namespace swin_umamba::cpu {
namespace {

struct InstructionSet {
  const char* name;
  bool (*runs_here)();
  const Kernels<float>& f32;
  const Kernels<double>& f64;
};

// Fastest first. Each line asks for every feature that the file's compiler flags allow.
const InstructionSet kAll[] = {
#if defined(SWIN_UMAMBA_AVX512)
    {"avx512",
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
     },
     k_avx512_f32, k_avx512_f64},
#endif
#if defined(SWIN_UMAMBA_AVX2)
    {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); },
     k_avx2_f32, k_avx2_f64},
#endif
    {"base", [] { return true; }, k_base_f32, k_base_f64},
};

const InstructionSet& fastest() {
  for (const InstructionSet& set : kAll) {
    if (set.runs_here()) return set;
  }
  throw std::logic_error("no instruction set");  // "base" always runs
}

std::atomic<const InstructionSet*>& current() {
  static std::atomic<const InstructionSet*> set{&fastest()};
  return set;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : kAll) {
    if (set.runs_here()) names.emplace_back(set.name);
  }
  return names;
}

std::string instruction_set() { return current().load()->name; }

void set_instruction_set(const std::string& name) {
  for (const InstructionSet& set : kAll) {
    if (name == set.name && set.runs_here()) {
      current() = &set;
      return;
    }
  }
  throw std::invalid_argument("this build has no instruction set '" + name + "' for this machine");
}

template <>
const Kernels<float>& kernels() {
  return current().load()->f32;
}
template <>
const Kernels<double>& kernels() {
  return current().load()->f64;
}

}  // namespace swin_umamba::cpu
