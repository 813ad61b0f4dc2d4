// The CPU kernels for Python: an op takes the fields of its struct in csrc/cpu/params.h.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "../cpu/cpu.h"
#include "fields.h"

namespace swin_umamba::bindings {

template <class P>
void add_ss2d(Fields<P>& fields) {
  FIELD(B) FIELD(D) FIELD(H) FIELD(W) FIELD(N) FIELD(R) FIELD(storage)
  FIELD(x) FIELD(proj) FIELD(dt_weight) FIELD(dt_bias) FIELD(A_logs) FIELD(Ds) FIELD(states)
}
template <class P>
void add_scan(Fields<P>& fields) {
  FIELD(B) FIELD(G) FIELD(D) FIELD(L) FIELD(N) FIELD(storage) FIELD(softplus)
  FIELD(u) FIELD(delta) FIELD(A) FIELD(Bs) FIELD(Cs) FIELD(Ds) FIELD(bias) FIELD(states)
}
template <class T>
void add_fields(Fields<cpu::SS2DForward<T>>& fields) {
  using P = cpu::SS2DForward<T>;
  add_ss2d(fields);
  FIELD(y)
}
template <class T>
void add_fields(Fields<cpu::SS2DBackward<T>>& fields) {
  using P = cpu::SS2DBackward<T>;
  add_ss2d(fields);
  FIELD(dy) FIELD(dx) FIELD(dproj) FIELD(ddt_weight) FIELD(ddt_bias) FIELD(dA_logs) FIELD(dDs)
}
template <class T>
void add_fields(Fields<cpu::ScanForward<T>>& fields) {
  using P = cpu::ScanForward<T>;
  add_scan(fields);
  FIELD(out) FIELD(last)
}
template <class T>
void add_fields(Fields<cpu::ScanBackward<T>>& fields) {
  using P = cpu::ScanBackward<T>;
  add_scan(fields);
  FIELD(dout) FIELD(dlast) FIELD(du) FIELD(ddelta) FIELD(dA) FIELD(dBs) FIELD(dCs) FIELD(dDs) FIELD(dbias)
}

template <class P>
void run_on_cpu(void (*op)(const P&, int), int threads, const py::kwargs& values) {
  static const Fields<P> fields = [] {
    Fields<P> all;
    add_fields(all);
    return all;
  }();
  const P p = fields.all(values);
  const py::gil_scoped_release unlocked;
  op(p, threads);
}

#define CPU_OP(name, Params)                                                          \
  m.def(#name, [](bool float64, int threads, const py::kwargs& values) {              \
    if (float64) return run_on_cpu<cpu::Params<double>>(cpu::name, threads, values);  \
    return run_on_cpu<cpu::Params<float>>(cpu::name, threads, values);                \
  }, py::arg("float64"), py::arg("threads"));

template <class T>
void elementwise(const std::string& function, std::uintptr_t x, std::uintptr_t y, std::uintptr_t derivative, int64_t count) {
  const auto at = [](std::uintptr_t address) { return reinterpret_cast<T*>(address); };
  const cpu::Kernels<T>& kernels = cpu::kernels<T>();
  if (function == "exp2") {
    kernels.exp2(at(x), at(y), count);
  } else if (function == "exp") {
    kernels.exp(at(x), at(y), count);
  } else if (function == "softplus") {
    kernels.softplus(at(x), at(y), at(derivative), count);
  } else {
    throw std::invalid_argument("function is '" + function + "', expected exp2, exp or softplus");
  }
}

inline void bind_cpu(py::module_ m) {
  m.attr("CHUNK_LENGTH") = cpu::kChunk;
  m.attr("DIRECTIONS") = cpu::kDirections;
  py::enum_<cpu::Storage>(m, "Storage")
      .value("SAME", cpu::kSame)
      .value("BFLOAT16", cpu::kBFloat16)
      .value("FLOAT16", cpu::kFloat16);
  m.def("has_openmp", &cpu::has_openmp);
  m.def("instruction_sets", &cpu::instruction_sets);
  m.def("instruction_set", &cpu::instruction_set);
  m.def("set_instruction_set", &cpu::set_instruction_set, py::arg("name"));
  CPU_OP(ss2d_forward, SS2DForward)
  CPU_OP(ss2d_backward, SS2DBackward)
  CPU_OP(scan_forward, ScanForward)
  CPU_OP(scan_backward, ScanBackward)
  m.def(
      "elementwise",
      [](const std::string& function, bool float64, std::uintptr_t x, std::uintptr_t y,
         std::uintptr_t derivative, int64_t count) {
        (float64 ? elementwise<double> : elementwise<float>)(function, x, y, derivative, count);
      },
      py::arg("function"), py::arg("float64"), py::arg("x"), py::arg("y"), py::arg("derivative"),
      py::arg("count"), without_gil(),
      "For tests: the vectorised exp2, exp, or softplus and its derivative.");
}

}  // namespace swin_umamba::bindings
