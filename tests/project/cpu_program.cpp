// The CPU kernels by themselves, without Python: ss2d against the formula in double, forward and,
// by finite differences, backward. For machines that are only emulated.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cpu/cpu.h"

namespace cpu = swin_umamba::cpu;
using std::vector;

constexpr int64_t B = 2, D = 9, H = 7, W = 11, N = 3, R = 2, K = 4, L = H * W, ROW = R + 2 * N;
constexpr int64_t C = (L + cpu::kChunk - 1) / cpu::kChunk;

struct Inputs {
  vector<double> x, proj, dt_weight, dt_bias, A_logs, Ds;
};

static double uniform() { return 2.0 * std::rand() / RAND_MAX - 1; }

static vector<double> filled(int64_t count, double scale) {
  vector<double> values(count);
  for (double& value : values) value = scale * uniform();
  return values;
}

static int64_t position(int64_t direction, int64_t step) {
  if (direction >= 2) step = L - 1 - step;
  return direction % 2 == 0 ? step : step % H * W + step / H;
}

static vector<double> formula(const Inputs& in) {
  vector<double> y(B * L * D);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t d = 0; d < D; ++d) {
        double h[N] = {};
        for (int64_t step = 0; step < L; ++step) {
          const int64_t at = b * L + position(k, step);
          const double* row = &in.proj[(at * K + k) * ROW];
          double z = in.dt_bias[k * D + d], sum = 0;
          for (int64_t r = 0; r < R; ++r) z += in.dt_weight[(k * D + d) * R + r] * row[r];
          const double delta = std::log1p(std::exp(z)), x = in.x[at * D + d];
          for (int64_t n = 0; n < N; ++n) {
            const double a = -std::exp(in.A_logs[(k * D + d) * N + n]);
            h[n] = std::exp(delta * a) * h[n] + delta * row[R + n] * x;
            sum += row[R + N + n] * h[n];
          }
          y[at * D + d] += sum + in.Ds[k * D + d] * x;
        }
      }
  return y;
}

template <class T>
struct Run {
  vector<T> x, proj, dt_weight, dt_bias, A_logs, Ds, y, states;

  explicit Run(const Inputs& in)
      : x(in.x.begin(), in.x.end()),
        proj(in.proj.begin(), in.proj.end()),
        dt_weight(in.dt_weight.begin(), in.dt_weight.end()),
        dt_bias(in.dt_bias.begin(), in.dt_bias.end()),
        A_logs(in.A_logs.begin(), in.A_logs.end()),
        Ds(in.Ds.begin(), in.Ds.end()),
        y(B * L * D),
        states(B * K * C * D * N) {
    cpu::SS2DForward<T> call{};
    static_cast<cpu::SS2DSizes&>(call) = {B, D, H, W, N, R, cpu::kSame};
    call.x = x.data();
    call.proj = proj.data();
    call.dt_weight = dt_weight.data();
    call.dt_bias = dt_bias.data();
    call.A_logs = A_logs.data();
    call.Ds = Ds.data();
    call.y = y.data();
    call.states = states.data();
    cpu::ss2d_forward(call, 1);
  }
};

static double sum_of_products(const vector<double>& y, const vector<double>& dy) {
  double sum = 0;
  for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
  return sum;
}

static void check(const char* what, double found, double exact, double tolerance) {
  if (std::abs(found - exact) <= tolerance * std::max(1.0, std::abs(exact))) return;
  std::printf("%s: %g, expected %g\n", what, found, exact);
  std::exit(1);
}

int main() {
  Inputs in{filled(B * L * D, 1), filled(B * L * K * ROW, 1), filled(K * D * R, 0.5),
            filled(K * D, 1),     filled(K * D * N, 0.5),     filled(K * D, 1)};
  const vector<double> exact = formula(in);
  const Run<double> wide(in);
  const Run<float> narrow(in);
  for (size_t i = 0; i < exact.size(); ++i) {
    check("double", wide.y[i], exact[i], 1e-10);
    check("float", narrow.y[i], exact[i], 2e-4);
  }

  const vector<double> dy = filled(B * L * D, 1);
  vector<double> dx(B * L * D), dproj(B * L * K * ROW), ddt_weight(B * K * D * R),
      ddt_bias(B * K * D), dA_logs(B * K * D * N), dDs(B * K * D);
  cpu::SS2DBackward<double> call{};
  static_cast<cpu::SS2DSizes&>(call) = {B, D, H, W, N, R, cpu::kSame};
  call.dy = dy.data();
  call.x = wide.x.data();
  call.proj = wide.proj.data();
  call.dt_weight = wide.dt_weight.data();
  call.dt_bias = wide.dt_bias.data();
  call.A_logs = wide.A_logs.data();
  call.Ds = wide.Ds.data();
  call.states = wide.states.data();
  call.dx = dx.data();
  call.dproj = dproj.data();
  call.ddt_weight = ddt_weight.data();
  call.ddt_bias = ddt_bias.data();
  call.dA_logs = dA_logs.data();
  call.dDs = dDs.data();
  cpu::ss2d_backward(call, 1);

  struct Part {
    const char* name;
    vector<double>* values;
    const vector<double>* gradient;  // of parameters one row per image
  };
  for (const Part& part : {Part{"dx", &in.x, &dx}, Part{"dproj", &in.proj, &dproj},
                           Part{"ddt_weight", &in.dt_weight, &ddt_weight},
                           Part{"ddt_bias", &in.dt_bias, &ddt_bias},
                           Part{"dA_logs", &in.A_logs, &dA_logs}, Part{"dDs", &in.Ds, &dDs}}) {
    const size_t count = part.values->size();
    for (size_t i = 0; i < count; i += count / 7 + 1) {
      constexpr double kStep = 1e-5;
      double found = 0;
      for (size_t row = i; row < part.gradient->size(); row += count) found += (*part.gradient)[row];
      double& value = (*part.values)[i];
      const double kept = value;
      value = kept + kStep;
      const double above = sum_of_products(formula(in), dy);
      value = kept - kStep;
      const double below = sum_of_products(formula(in), dy);
      value = kept;
      check(part.name, found, (above - below) / (2 * kStep), 1e-5);
    }
  }
  std::printf("%s: forward and backward agree with the formula\n", cpu::instruction_set().c_str());
}
