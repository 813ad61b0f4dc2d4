// Python's view of the kernels: addresses, sizes, strides and a stream handle, never a tensor.
#include <pybind11/pybind11.h>

#include "build_info.h"

namespace py = pybind11;

namespace {

// What the build found and left out: see csrc/building/plan.py.
py::object build_info() { return py::module_::import("json").attr("loads")(kBuildInfo); }

}  // namespace

PYBIND11_MODULE(_C, m) { m.def("build_info", &build_info); }
