#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace swin_umamba {

// An error that is raised is cleared: CUDA would report it again after the next launch, which may be fine.
inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

}  // namespace swin_umamba
