// The CUDA kernels for Python: one class per struct of csrc/cuda/params.h.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "../cuda/launch.h"
#include "fields.h"

namespace swin_umamba::bindings {

namespace cuda = swin_umamba;
using cuda::Family, cuda::Pass;

// Kernels read and write vectors at every address except for maps that they take value by value:
// those may lie inside a row of the projection. Alignment is checked only here.
inline void check_aligned(Family family, std::string_view name, const void* address) {
  const auto value = reinterpret_cast<std::uintptr_t>(address);
  if (value % cuda::kAlignment == 0) return;
  const bool is_map = name == "Bs" || name == "Cs" || name == "dBs" || name == "dCs";
  if (is_map && (family == Family::kStrided || family == Family::kOneState)) return;
  throw std::invalid_argument(
      "'" + std::string(name) + "' is at address " + std::to_string(value) + ", expected a multiple of " +
      std::to_string(cuda::kAlignment));
}

template <class P>
using Class = py::class_<P>;

#define NUMBER(name) FIELD(name) c.def_readwrite(#name, &P::name);

template <class P>
void add_scan(Class<P>& c, Fields<P>& fields) {
  c.def_readonly("family", &P::family);
  NUMBER(B) NUMBER(K) NUMBER(D) NUMBER(H) NUMBER(W) NUMBER(N) NUMBER(G) NUMBER(R)
  NUMBER(dtype) NUMBER(a_is_log)
  NUMBER(first_direction) NUMBER(directions) NUMBER(first_block) NUMBER(blocks)
  NUMBER(splits) NUMBER(tiles_per_split) NUMBER(segments) NUMBER(tiles_per_segment)
  NUMBER(min_shared_bytes) NUMBER(sum_rows)
  FIELD(x) FIELD(A) FIELD(Ds) FIELD(bias) FIELD(out) FIELD(states) FIELD(last_state)
  FIELD(split_state) FIELD(split_dt) FIELD(carry_state) FIELD(counters)
  FIELD(dout) FIELD(dlast) FIELD(dx) FIELD(dA) FIELD(dDs) FIELD(dbias)
}

template <class P>
void add_delta(Class<P>& c, Fields<P>& fields) {
  NUMBER(delta_b) NUMBER(delta_k) NUMBER(delta_l) NUMBER(delta_d)
  NUMBER(bc_b) NUMBER(bc_k) NUMBER(bc_l) NUMBER(bc_n)
  FIELD(delta) FIELD(Bs) FIELD(Cs) FIELD(ddelta) FIELD(dBs) FIELD(dCs)
}

template <class P>
void add_projection(Class<P>&, Fields<P>& fields) {
  FIELD(proj) FIELD(dt_weight) FIELD(dproj) FIELD(ddt_weight)
}

inline void add_own(Class<cuda::StridedParams>& c, Fields<cuda::StridedParams>& fields) {
  using P = cuda::StridedParams;
  add_delta(c, fields);
  NUMBER(delta_dtype) NUMBER(out_dtype) NUMBER(dout_dtype) NUMBER(softplus) NUMBER(accumulate)
  NUMBER(x_b) NUMBER(x_l) NUMBER(x_d) NUMBER(out_b) NUMBER(out_l) NUMBER(out_d)
  NUMBER(dout_b) NUMBER(dout_l) NUMBER(dout_d)
}

inline void add_own(Class<cuda::ImageParams>& c, Fields<cuda::ImageParams>& fields) { add_projection(c, fields); }

inline void add_own(Class<cuda::OneStateParams>& c, Fields<cuda::OneStateParams>& fields) {
  using P = cuda::OneStateParams;
  add_delta(c, fields);
  add_projection(c, fields);
  NUMBER(one_state) NUMBER(one_state_tiles) NUMBER(one_state_blocks)
}

template <class P>
Fields<P>& fields_of() {
  static Fields<P> fields;
  return fields;
}

template <class P>
P replace(const P& p, const py::kwargs& values) {
  P changed = p;
  fields_of<P>().fill(changed, values, [&](std::string_view name, const void* address) {
    check_aligned(p.family, name, address);
  });
  return changed;
}

template <class P>
py::object make(Family family, const py::kwargs& values) {
  P p;
  p.family = family;
  return py::cast(replace(p, values));
}

inline py::object make_params(Family family, const py::kwargs& values) {
  switch (family) {
    case Family::kStrided:
    case Family::kSequence: return make<cuda::StridedParams>(family, values);
    case Family::kImage: return make<cuda::ImageParams>(family, values);
    case Family::kOneState:
    case Family::kOneStateImage: return make<cuda::OneStateParams>(family, values);
  }
  throw std::invalid_argument("unknown family of kernels");
}

template <class P>
void bind_params(py::module_& m, const char* name) {
  Class<P> c(m, name);
  add_scan(c, fields_of<P>());
  add_own(c, fields_of<P>());
  c.def("replace", &replace<P>, "A copy with these fields.");
  c.def("partition", [](P& p, Pass pass) { cuda::partition(p, pass); }, without_gil());
  c.def("launch", [](const P& p, Pass pass, std::uintptr_t stream) { cuda::launch(p, pass, stream); }, without_gil());
  c.def("channel_blocks", [](const P& p) { return cuda::channel_blocks(p); });
  c.def("shared_bytes", [](const P& p) { return cuda::shared_bytes(p); });
}

inline void add_reduction(
    cuda::Reductions& all, std::uintptr_t from, std::uintptr_t to, int64_t count, int32_t rows, int32_t dtype,
    float scale) {
  if (all.count == cuda::Reductions::kMaxParts) throw std::invalid_argument("more parts than one launch takes");
  all.parts[all.count++] = {reinterpret_cast<const float*>(from), reinterpret_cast<void*>(to), count, rows, dtype, scale};
}

inline void bind_cuda(py::module_ m) {
  m.attr("TILE") = cuda::kTile;
  m.attr("ALIGNMENT") = cuda::kAlignment;
  m.attr("MAX_STATES") = cuda::kMaxStates;
  m.attr("IMAGE_STATES") = py::tuple(py::cast(std::vector<int>(std::begin(cuda::kImageStates), std::end(cuda::kImageStates))));
  m.attr("MIN_CAPABILITY") = cuda::kMinCapability;
  m.attr("SUM_SCALE") = cuda::kSumScale;
  py::enum_<cuda::DType>(m, "DType")
      .value("FLOAT32", cuda::kFloat32)
      .value("FLOAT16", cuda::kFloat16)
      .value("BFLOAT16", cuda::kBFloat16);
  py::enum_<Family>(m, "Family")
      .value("STRIDED", Family::kStrided)
      .value("SEQUENCE", Family::kSequence)
      .value("IMAGE", Family::kImage)
      .value("ONE_STATE", Family::kOneState)
      .value("ONE_STATE_IMAGE", Family::kOneStateImage);
  py::enum_<Pass>(m, "Pass")
      .value("FORWARD", Pass::kForward)
      .value("FORWARD_SPLITS", Pass::kForwardSplits)
      .value("BACKWARD", Pass::kBackward)
      .value("BACKWARD_SPLITS", Pass::kBackwardSplits);
  bind_params<cuda::StridedParams>(m, "StridedParams");
  bind_params<cuda::ImageParams>(m, "ImageParams");
  bind_params<cuda::OneStateParams>(m, "OneStateParams");
  m.def("params", &make_params, py::arg("family"), "The parameters of a family's kernels, with these fields.");
  py::class_<cuda::Reductions>(m, "Reductions")
      .def(py::init<>())
      .def("add", &add_reduction)
      .def("launch", [](const cuda::Reductions& all, std::uintptr_t stream) { launch_reductions(all, stream); }, without_gil());
  m.def("image_kernels_serve", &cuda::image_kernels_serve);
  m.def("one_state_warps", &cuda::one_state_warps);
  m.def("sequence_kernels_serve", &cuda::sequence_kernels_serve);
  m.def("segment_counters", &cuda::segment_counters);
  m.def("max_shared_bytes", &cuda::max_shared_bytes);
  m.def("driver_version", &cuda::driver_version);
}

}  // namespace swin_umamba::bindings
