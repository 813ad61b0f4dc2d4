// Python's view of the kernels: addresses, sizes, strides and a stream handle, never a tensor.
#include <pybind11/pybind11.h>

#include "build_info.h"
#ifdef SWIN_UMAMBA_CUDA
#include "cuda/launch.h"
#endif

namespace py = pybind11;

namespace {

// What the build found and left out: see csrc/building/plan.py.
py::object build_info() { return py::module_::import("json").attr("loads")(kBuildInfo); }

#ifdef SWIN_UMAMBA_CUDA
template <class T>
void def_address(py::class_<swin_umamba::ScanParams>& c, const char* name,
                 T swin_umamba::ScanParams::*field) {
  using swin_umamba::ScanParams;
  c.def_property(
      name, [field](const ScanParams& p) { return reinterpret_cast<std::uintptr_t>(p.*field); },
      [field](ScanParams& p, std::uintptr_t v) { p.*field = reinterpret_cast<T>(v); });
}

// The CUDA kernels: fields by name, addresses as integers, and launches on a stream handle.
void bind_cuda(py::module_ m) {
  using namespace swin_umamba;
  py::class_<ScanParams> c(m, "ScanParams");
  c.def(py::init([](const py::kwargs& fields) {
    py::object self = py::cast(ScanParams{});
    for (auto item : fields) self.attr(item.first) = item.second;
    return self.cast<ScanParams>();
  }));
  c.def("with_fields", [](const ScanParams& self, const py::kwargs& fields) {
    py::object copy = py::cast(ScanParams(self));
    for (auto item : fields) copy.attr(item.first) = item.second;
    return copy;
  });
#define FIELD(name) c.def_readwrite(#name, &ScanParams::name)
#define ADDRESS(name) def_address(c, #name, &ScanParams::name)
  FIELD(B); FIELD(K); FIELD(D); FIELD(H); FIELD(W); FIELD(N); FIELD(G); FIELD(R);
  FIELD(dtype); FIELD(out_dtype); FIELD(first_direction); FIELD(directions); FIELD(first_block);
  FIELD(blocks); FIELD(splits); FIELD(tiles_per_split); FIELD(a_is_log); FIELD(softplus);
  FIELD(accumulate);
  FIELD(x_b); FIELD(x_l); FIELD(x_d); FIELD(delta_b); FIELD(delta_k); FIELD(delta_l); FIELD(delta_d);
  FIELD(bc_b); FIELD(bc_k); FIELD(bc_l); FIELD(bc_n); FIELD(out_b); FIELD(out_l); FIELD(out_d);
  FIELD(dout_b); FIELD(dout_l); FIELD(dout_d);
  ADDRESS(x); ADDRESS(delta); ADDRESS(Bs); ADDRESS(Cs); ADDRESS(proj); ADDRESS(dt_weight);
  ADDRESS(A); ADDRESS(Ds); ADDRESS(bias); ADDRESS(out); ADDRESS(states); ADDRESS(last_state);
  ADDRESS(split_state); ADDRESS(split_dt); ADDRESS(dout); ADDRESS(dlast); ADDRESS(dx);
  ADDRESS(ddelta); ADDRESS(dBs); ADDRESS(dCs); ADDRESS(dproj); ADDRESS(dA); ADDRESS(dDs);
  ADDRESS(dbias); ADDRESS(ddt_weight);
#undef FIELD
#undef ADDRESS
  py::enum_<Pass>(m, "Pass")
      .value("FORWARD", Pass::kForward)
      .value("FORWARD_SPLITS", Pass::kForwardSplits)
      .value("BACKWARD", Pass::kBackward)
      .value("BACKWARD_SPLITS", Pass::kBackwardSplits);
  m.def("image_kernels_serve", &image_kernels_serve);
  m.def("max_states", &max_states);
  m.def("channel_blocks", &channel_blocks);
  m.def("choose_splits", &choose_splits);
  m.def("launch", &launch);
  m.def("driver_version", &driver_version);
  m.def("runtime_version", &runtime_version);
}
#endif

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.def("build_info", &build_info);
#ifdef SWIN_UMAMBA_CUDA
  bind_cuda(m.def_submodule("cuda"));
#endif
}
