#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace swin_umamba {

// An error that is told is over: CUDA would hand it to whoever asks next, after a launch that went well.
inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

}  // namespace swin_umamba
