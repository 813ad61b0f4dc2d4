// The CPU kernels as the bindings call them: whole ops, split over threads, on the fastest
// instruction set of this machine.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace swin_umamba::cpu {

// Names of the instruction sets that the build holds and this machine runs, fastest first.
std::vector<std::string> instruction_sets();
// The one in use. Setting one that is not among instruction_sets() throws std::invalid_argument.
std::string instruction_set();
void set_instruction_set(const std::string& name);
bool has_openmp();

// Results depend on the instruction set, never on the number of threads.
template <class T>
void ss2d_forward(const SS2DForward<T>&, int threads);
// Gradients must be zero on entry.
template <class T>
void ss2d_backward(const SS2DBackward<T>&, int threads);
template <class T>
void scan_forward(const ScanForward<T>&, int threads);
// Gradients must be zero on entry.
template <class T>
void scan_backward(const ScanBackward<T>&, int threads);

template <class T>
const Kernels<T>& kernels();

}  // namespace swin_umamba::cpu
