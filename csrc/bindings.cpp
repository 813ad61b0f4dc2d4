// Python's view of the kernels: addresses, sizes, strides and a stream handle, never a tensor.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "build_info.h"
#include "cpu/cpu.h"
#ifdef SWIN_UMAMBA_CUDA
#include "cuda/launch.h"
#endif

namespace py = pybind11;

namespace {

// What the build found and left out: see csrc/building/plan.py.
py::object build_info() { return py::module_::import("json").attr("loads")(kBuildInfo); }

#ifdef SWIN_UMAMBA_CUDA
// The addresses of a pass as Python hands them over, in the order of csrc/cuda/params.h.
#define FOR_EACH_ADDRESS(f)                                                                      \
  f(x) f(delta) f(Bs) f(Cs) f(proj) f(dt_weight) f(A) f(Ds) f(bias) f(out) f(states)             \
  f(last_state) f(split_state) f(split_dt) f(leg_state) f(leg_turns) f(dout) f(dlast) f(dx)      \
  f(ddelta) f(dBs) f(dCs) f(dproj) f(dA) f(dDs) f(dbias) f(ddt_weight)
#define NAME(name) #name,
constexpr std::array kAddresses{FOR_EACH_ADDRESS(NAME)};
#undef NAME

// Items of tuples are read straight: pybind11's casters of sequences take longer than a launch.
PyObject* item(const py::tuple& t, py::ssize_t i) { return PyTuple_GET_ITEM(t.ptr(), i); }

void expect_size(const py::tuple& t, std::size_t size) {
  if (t.size() != size) throw std::invalid_argument("expected a tuple of " + std::to_string(size));
}

swin_umamba::ScanParams with_addresses(swin_umamba::ScanParams p, const py::tuple& addresses) {
  expect_size(addresses, kAddresses.size());
  py::ssize_t next = 0;
#define SET(name) p.name = static_cast<decltype(p.name)>(PyLong_AsVoidPtr(item(addresses, next++)));
  FOR_EACH_ADDRESS(SET)
#undef SET
  if (PyErr_Occurred()) throw py::error_already_set();
  return p;
}

// Each part is (from, to, count, rows, dtype, scale), its rows side by side: see csrc/cuda/params.h.
void launch_totals(const std::vector<py::tuple>& parts, std::uintptr_t stream) {
  using swin_umamba::Totals;
  if (parts.size() > Totals::kMost) throw std::invalid_argument("more sums than one launch takes");
  Totals all;
  for (const py::tuple& part : parts) {
    expect_size(part, 6);
    auto& total = all.parts[all.count++];
    total.from = static_cast<const float*>(PyLong_AsVoidPtr(item(part, 0)));
    total.to = PyLong_AsVoidPtr(item(part, 1));
    total.count = PyLong_AsLongLong(item(part, 2));
    total.rows = static_cast<int32_t>(PyLong_AsLong(item(part, 3)));
    total.dtype = static_cast<int32_t>(PyLong_AsLong(item(part, 4)));
    total.scale = static_cast<float>(PyFloat_AsDouble(item(part, 5)));
  }
  if (PyErr_Occurred()) throw py::error_already_set();
  swin_umamba::launch_totals(all, stream);
}

// The CUDA kernels: sizes and strides by name, addresses as integers, and launches on a stream.
void bind_cuda(py::module_ m) {
  using namespace swin_umamba;
  py::class_<ScanParams> c(m, "ScanParams");
  c.def(py::init([](const py::kwargs& fields) {
    py::object self = py::cast(ScanParams{});
    for (auto item : fields) self.attr(item.first) = item.second;
    return self.cast<ScanParams>();
  }));
  c.def(py::init<const ScanParams&>());
  c.def("with_addresses", &with_addresses, "A copy with the addresses in the order of `addresses`.");
  m.attr("sum_scale") = kSumScale;
  m.attr("addresses") = py::tuple(py::cast(kAddresses));
#define FIELD(name) c.def_readwrite(#name, &ScanParams::name)
  FIELD(B); FIELD(K); FIELD(D); FIELD(H); FIELD(W); FIELD(N); FIELD(G); FIELD(R);
  FIELD(dtype); FIELD(delta_dtype); FIELD(out_dtype); FIELD(first_direction); FIELD(directions); FIELD(first_block);
  FIELD(blocks); FIELD(splits); FIELD(tiles_per_split); FIELD(legs); FIELD(tiles_per_leg); FIELD(least_shared);
  FIELD(sum_rows); FIELD(sequence); FIELD(one_state); FIELD(one_state_tiles); FIELD(a_is_log); FIELD(softplus);
  FIELD(accumulate); FIELD(dout_dtype);
  FIELD(x_b); FIELD(x_l); FIELD(x_d); FIELD(delta_b); FIELD(delta_k); FIELD(delta_l); FIELD(delta_d);
  FIELD(bc_b); FIELD(bc_k); FIELD(bc_l); FIELD(bc_n); FIELD(out_b); FIELD(out_l); FIELD(out_d);
  FIELD(dout_b); FIELD(dout_l); FIELD(dout_d);
#undef FIELD
  py::enum_<Pass>(m, "Pass")
      .value("FORWARD", Pass::kForward)
      .value("FORWARD_SPLITS", Pass::kForwardSplits)
      .value("BACKWARD", Pass::kBackward)
      .value("BACKWARD_SPLITS", Pass::kBackwardSplits);
  m.def("image_kernels_serve", &image_kernels_serve);
  m.def("one_state_warps", &one_state_warps);
  m.def("max_states", &max_states);
  m.def("sequence_kernels_serve", &sequence_kernels_serve);
  m.def("channel_blocks", &channel_blocks);
  m.def("leg_counters", &leg_counters);
  m.def("shared_bytes", &shared_bytes);
  m.def("most_shared_bytes", &most_shared_bytes);
  m.def("cut", &cut);
  m.def("launch", &launch);
  m.def("launch_totals", &::launch_totals);
  m.def("driver_version", &driver_version);
  m.def("runtime_version", &runtime_version);
}
#endif

// ---- the CPU kernels

namespace cpu = swin_umamba::cpu;

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// An op of csrc/cpu/cpu.h on a structure of csrc/cpu/params.h: sizes, then addresses in its order.
template <template <class> class Params, class T, class Sizes, std::size_t... i>
Params<T> params(const Sizes& sizes, const uintptr_t* addresses, std::index_sequence<i...>) {
  return {sizes, at<T>(addresses[i])...};
}

template <template <class> class Params, class Sizes, std::size_t count>
void on_cpu(
    void (*f32)(const Params<float>&, int), void (*f64)(const Params<double>&, int), bool float64,
    const Sizes& sizes, const std::array<uintptr_t, count>& addresses, int threads) {
  const py::gil_scoped_release unlocked;
  constexpr auto all = std::make_index_sequence<count>{};
  if (float64) {
    f64(params<Params, double>(sizes, addresses.data(), all), threads);
  } else {
    f32(params<Params, float>(sizes, addresses.data(), all), threads);
  }
}

cpu::SS2DSizes ss2d_sizes(const std::array<int64_t, 7>& n) {
  return {n[0], n[1], n[2], n[3], n[4], n[5], n[6]};
}
cpu::ScanSizes scan_sizes(const std::array<int64_t, 6>& n, bool softplus) {
  return {n[0], n[1], n[2], n[3], n[4], n[5], softplus};
}

template <class T>
void elementwise(
    const std::string& function, uintptr_t x, uintptr_t y, uintptr_t derivative, int64_t count) {
  const cpu::Kernels<T>& kernels = cpu::kernels<T>();
  if (function == "exp2") {
    kernels.exp2(at<T>(x), at<T>(y), count);
  } else if (function == "exp") {
    kernels.exp(at<T>(x), at<T>(y), count);
  } else if (function == "softplus") {
    kernels.softplus(at<T>(x), at<T>(y), at<T>(derivative), count);
  } else {
    throw std::invalid_argument("function is '" + function + "', expected exp2, exp or softplus");
  }
}

void bind_cpu(py::module_ m) {
  m.doc() = "The CPU kernels; sizes and addresses in the order of csrc/cpu/params.h";
  m.attr("chunk_length") = cpu::kChunk;
  m.def("has_openmp", &cpu::has_openmp);
  m.def("instruction_sets", &cpu::instruction_sets);
  m.def("instruction_set", &cpu::instruction_set);
  m.def("set_instruction_set", &cpu::set_instruction_set, py::arg("name"));
  m.def(
      "ss2d_forward",
      [](bool float64, const std::array<int64_t, 7>& sizes,
         const std::array<uintptr_t, 8>& addresses, int threads) {
        on_cpu<cpu::SS2DForward>(
            cpu::ss2d_forward<float>, cpu::ss2d_forward<double>, float64, ss2d_sizes(sizes),
            addresses, threads);
      },
      py::arg("float64"), py::arg("sizes"), py::arg("addresses"), py::arg("threads"));
  m.def(
      "ss2d_backward",
      [](bool float64, const std::array<int64_t, 7>& sizes,
         const std::array<uintptr_t, 14>& addresses, int threads) {
        on_cpu<cpu::SS2DBackward>(
            cpu::ss2d_backward<float>, cpu::ss2d_backward<double>, float64, ss2d_sizes(sizes),
            addresses, threads);
      },
      py::arg("float64"), py::arg("sizes"), py::arg("addresses"), py::arg("threads"));
  m.def(
      "scan_forward",
      [](bool float64, const std::array<int64_t, 6>& sizes, bool softplus,
         const std::array<uintptr_t, 10>& addresses, int threads) {
        on_cpu<cpu::ScanForward>(
            cpu::scan_forward<float>, cpu::scan_forward<double>, float64,
            scan_sizes(sizes, softplus), addresses, threads);
      },
      py::arg("float64"), py::arg("sizes"), py::arg("softplus"), py::arg("addresses"),
      py::arg("threads"));
  m.def(
      "scan_backward",
      [](bool float64, const std::array<int64_t, 6>& sizes, bool softplus,
         const std::array<uintptr_t, 17>& addresses, int threads) {
        on_cpu<cpu::ScanBackward>(
            cpu::scan_backward<float>, cpu::scan_backward<double>, float64,
            scan_sizes(sizes, softplus), addresses, threads);
      },
      py::arg("float64"), py::arg("sizes"), py::arg("softplus"), py::arg("addresses"),
      py::arg("threads"));
  m.def(
      "elementwise",
      [](const std::string& function, bool float64, uintptr_t x, uintptr_t y, uintptr_t derivative,
         int64_t count) {
        (float64 ? elementwise<double> : elementwise<float>)(function, x, y, derivative, count);
      },
      py::arg("function"), py::arg("float64"), py::arg("x"), py::arg("y"), py::arg("derivative"),
      py::arg("count"), "For tests: the vectorised exp2, exp, or softplus and its derivative.");
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.def("build_info", &build_info);
  bind_cpu(m.def_submodule("cpu"));
#ifdef SWIN_UMAMBA_CUDA
  bind_cuda(m.def_submodule("cuda"));
#endif
}
