// What one call of the CPU kernels works on. Sizes, then addresses; all arrays contiguous.
// B batch, D channels, L = H * W steps, K = 4 directions, N states, R dt rank, G groups of maps,
// C = ceil(L / kChunk) chunks of steps.
#pragma once

#include <cstdint>

namespace swin_umamba::cpu {

constexpr int64_t kDirections = 4;
constexpr int64_t kChunk = 64;  // steps between two saved states

// How the large inputs are stored where T is float: as T, or in 16 bits.
enum Storage : int64_t { kSame = 0, kBFloat16 = 1, kFloat16 = 2 };

struct SS2DSizes {
  int64_t B, D, H, W, N, R;
  int64_t storage;  // of x and proj
  int64_t L() const { return H * W; }
  int64_t C() const { return (L() + kChunk - 1) / kChunk; }
  int64_t row() const { return R + 2 * N; }  // one position and direction of the projection
};

template <class T>
struct SS2DForward : SS2DSizes {
  const T* x;          // (B, L, D)
  const T* proj;       // (B, L, K, R + 2N): dt before its second factor, Bs, Cs
  const T* dt_weight;  // (K, D, R)
  const T* dt_bias;    // (K, D)
  const T* A_logs;     // (K, D, N)
  const T* Ds;         // (K, D)
  T* y;                // (B, L, D), merged over the directions
  T* states;           // (B, K, C, D, N), the state entering each chunk, or null: not wanted
};

template <class T>
struct SS2DBackward : SS2DSizes {
  const T* dy;         // (B, L, D)
  const T* x;          // as in the forward, down to states
  const T* proj;
  const T* dt_weight;
  const T* dt_bias;
  const T* A_logs;
  const T* Ds;
  const T* states;
  T* dx;          // (B, L, D)
  T* dproj;       // (B, L, K, R + 2N)
  T* ddt_weight;  // (B, K, D, R): one row per image here and below, summed by the caller
  T* ddt_bias;    // (B, K, D)
  T* dA_logs;     // (B, K, D, N)
  T* dDs;         // (B, K, D)
};

struct ScanSizes {
  int64_t B, G, D, L, N;
  int64_t storage;  // of u, delta, Bs and Cs
  bool softplus;
  int64_t C() const { return (L + kChunk - 1) / kChunk; }
  int64_t row() const { return 2 * N; }
};

template <class T>
struct ScanForward : ScanSizes {
  const T* u;      // (B, D, L)
  const T* delta;  // (B, D, L)
  const T* A;      // (D, N)
  const T* Bs;     // (B, G, N, L)
  const T* Cs;     // (B, G, N, L)
  const T* Ds;     // (D,) or null
  const T* bias;   // (D,) or null
  T* out;          // (B, D, L)
  T* last;         // (B, D, N)
  T* states;       // (B, C, D, N) or null
};

template <class T>
struct ScanBackward : ScanSizes {
  const T* dout;   // (B, D, L)
  const T* dlast;  // (B, D, N) or null
  const T* u;      // as in the forward, down to states
  const T* delta;
  const T* A;
  const T* Bs;
  const T* Cs;
  const T* Ds;
  const T* bias;
  const T* states;
  T* du;      // (B, D, L)
  T* ddelta;  // (B, D, L)
  T* dA;      // (B, D, N): one row per image here and below, summed by the caller
  T* dBs;     // (B, G, N, L)
  T* dCs;     // (B, G, N, L)
  T* dDs;     // (B, D)
  T* dbias;   // (B, D)
};

}  // namespace swin_umamba::cpu
