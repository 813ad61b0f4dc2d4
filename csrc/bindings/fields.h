// Fills plain structs from Python's keyword arguments: fields by name, converted to their member's type.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>

namespace swin_umamba::bindings {

namespace py = pybind11;

using without_gil = py::call_guard<py::gil_scoped_release>;

// Sets Python's error where the value does not fit, as Python's own conversions do.
template <class V>
void from_python(V& to, PyObject* value) {
  if constexpr (std::is_pointer_v<V>) {
    to = static_cast<V>(PyLong_AsVoidPtr(value));
  } else if constexpr (std::is_same_v<V, bool>) {
    to = PyObject_IsTrue(value) == 1;
  } else {
    const long long number = PyLong_AsLongLong(value);
    if (number < std::numeric_limits<V>::min() || number > std::numeric_limits<V>::max()) {
      PyErr_SetString(PyExc_OverflowError, "the number does not fit");
    }
    to = static_cast<V>(number);
  }
}

template <class P>
class Fields {
  using Setter = const void* (*)(P&, PyObject*);

 public:
  template <auto member>
  void add(std::string_view name) {
    // A plain function pointer: the map's code is compiled once per struct, not once per member.
    const Setter set = [](P& p, PyObject* value) -> const void* {
      from_python(p.*member, value);
      if constexpr (std::is_pointer_v<std::remove_reference_t<decltype(p.*member)>>) return p.*member;
      return nullptr;
    };
    setters_.emplace(name, set);
  }

  // Sets the fields present in `values`; `check(name, address)` is called for the addresses among
  // them.
  template <class Check>
  void fill(P& p, const py::kwargs& values, Check check) const {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(values.ptr(), &at, &key, &value)) {
      Py_ssize_t length;
      const char* text = PyUnicode_AsUTF8AndSize(key, &length);
      const std::string_view name(text, static_cast<std::size_t>(length));
      const auto found = setters_.find(name);
      if (found == setters_.end()) throw py::type_error("there is no field '" + std::string(name) + "'");
      const void* address = found->second(p, value);
      if (PyErr_Occurred()) {
        py::raise_from(PyExc_TypeError, ("cannot set '" + std::string(name) + "'").c_str());
        throw py::error_already_set();
      }
      check(name, address);
    }
  }

  // A struct of all its fields; TypeError names one that is missing.
  P all(const py::kwargs& values) const {
    P p{};
    fill(p, values, [](std::string_view, const void*) {});
    if (values.size() == setters_.size()) return p;
    for (const auto& [name, set] : setters_) {
      if (!values.contains(py::str(name.data(), name.size()))) {
        throw py::type_error("the field '" + std::string(name) + "' is missing");
      }
    }
    return p;
  }

 private:
  std::unordered_map<std::string_view, Setter> setters_;
};

// Adds a member of P, by its own name.
#define FIELD(name) fields.template add<&P::name>(#name);

}  // namespace swin_umamba::bindings
