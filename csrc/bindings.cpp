// Python's view of the kernels: sizes, strides, addresses and a stream handle, never a tensor.
#include <pybind11/pybind11.h>

#include "bindings/cpu.h"
#include "build_info.h"
#ifdef SWIN_UMAMBA_CUDA
#include "bindings/cuda.h"
#endif

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  // What the build contains and leaves out: see csrc/building/plan.py.
  m.def("build_info", [] { return py::module_::import("json").attr("loads")(kBuildInfo); });
  swin_umamba::bindings::bind_cpu(m.def_submodule("cpu"));
#ifdef SWIN_UMAMBA_CUDA
  swin_umamba::bindings::bind_cuda(m.def_submodule("cuda"));
#endif
}
