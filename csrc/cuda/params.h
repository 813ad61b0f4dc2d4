// What a launch needs to know: one struct per family of kernels, passed to them by value. Plain data,
// which Python fills; no torch type appears.
//
// Letters: B batch, K directions, D channels, L steps (H * W), N states, G groups, R dt_rank.
// A stride counts elements. A null pointer means "not given" or "not wanted".
#pragma once

#include <cstdint>

#include "constants.h"

namespace swin_umamba {

enum DType : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

// Which kernels run. See launch.h for what each serves.
enum class Family : int32_t {
  kStrided,        // any strides and dtypes: strided.cuh
  kSequence,       // the 1-D scan of contiguous, aligned steps: sequence.cuh
  kImage,          // images in channels-last memory, dt computed from the projection: image.cuh
  kOneState,       // images in channels-last memory with one state per channel: one_state.cuh
  kOneStateImage,  // the same, dt computed from the projection
};

// Chained segments synchronize by counters: one of segments started, and for every warp of a block and
// range of a sequence one of segments finished. See segments.cuh.
constexpr int kMaxWarps = 4;
constexpr int64_t segment_counters(int64_t ranges) { return 1 + kMaxWarps * ranges; }

// Fields common to all families.
struct ScanParams {
  Family family = Family::kStrided;
  int32_t B = 0, K = 1, D = 0, H = 1, W = 0, N = 0, G = 1, R = 0;
  int32_t dtype = kFloat32;  // of x, Bs, Cs, dt_weight and dx
  int32_t a_is_log = 0;      // whether A = -exp of what is stored

  // The part of the grid covered by this launch: all of it, unless determinism requires an order.
  int32_t first_direction = 0, directions = 1;
  int32_t first_block = 0, blocks = 1;  // of channels, see channel_blocks()

  // The sequence is cut into `splits` ranges of `tiles_per_split` tiles, which run in parallel,
  int32_t splits = 1, tiles_per_split = 0;
  // and each range into chained segments, which run one after the other: see segments.cuh.
  int32_t segments = 1, tiles_per_segment = 0;
  // Shared memory that a block reserves at least: limits how many blocks a multiprocessor runs at a time.
  int32_t min_shared_bytes = 0;

  const void* x = nullptr;      // (B, L, D)
  const float* A = nullptr;     // (K * D, N)
  const float* Ds = nullptr;    // (K * D)
  const float* bias = nullptr;  // (K * D)

  // Forward outputs.
  void* out = nullptr;          // (B, L, D)
  float* states = nullptr;      // (B, K, tiles, D, N): the state entering each tile
  float* last_state = nullptr;  // (B, K * D, N)

  // What splits and segments pass on.
  float* split_state = nullptr;  // (B, K, splits, D, N): what a split adds to a zero state
  // (B, K, splits, D): the sum of dt over a split; with one state, what the split multiplies a state by.
  float* split_dt = nullptr;
  float* carry_state = nullptr;  // (B, K, splits, D, N): what a segment leaves to the next
  int32_t* counters = nullptr;   // (2, segment_counters(B * directions * blocks * splits)) zeros: one row per launch

  // Backward. Outputs that several blocks add to are float32.
  const void* dout = nullptr;    // (B, L, D)
  const float* dlast = nullptr;  // (B, K * D, N)
  void* dx = nullptr;            // (B, L, D)
  // Gradients of parameters times kSumScale, added to. Split after split and image after image take
  // rows in turns.
  int32_t sum_rows = 1;
  float* dA = nullptr;     // (sum_rows, K * D, N); of the log where a_is_log
  float* dDs = nullptr;    // (sum_rows, K * D)
  float* dbias = nullptr;  // (sum_rows, K * D)
};

// dt, Bs and Cs as tensors. ddelta, dBs and dCs are laid out like what they are the gradients of.
struct DeltaParams {
  const void* delta = nullptr;  // (B, K, L, D), before bias and softplus
  int64_t delta_b = 0, delta_k = 0, delta_l = 0, delta_d = 0;
  const void* Bs = nullptr;  // (B, K * G, L, N)
  const void* Cs = nullptr;  // like Bs
  int64_t bc_b = 0, bc_k = 0, bc_l = 0, bc_n = 0;
  void* ddelta = nullptr;
  float* dBs = nullptr;
  float* dCs = nullptr;
};

// Bs, Cs and the factors of dt, in contiguous rows. R is even.
struct ProjectionParams {
  const void* proj = nullptr;       // (B, L, K, R + 2N)
  const void* dt_weight = nullptr;  // (K, D, R)
  float* dproj = nullptr;           // (B, L, K, R + 2N)
  float* ddt_weight = nullptr;      // (sum_rows, K, D, R), like the other parameters' gradients
};

// Of kStrided and kSequence. For kSequence K is 1, x, delta, Bs, Cs, dx and ddelta are of dtype, their
// steps are contiguous and every row of steps starts at a multiple of four values.
struct StridedParams : ScanParams, DeltaParams {
  int32_t delta_dtype = kFloat32;  // of delta and ddelta
  int32_t out_dtype = kFloat32;
  int32_t dout_dtype = kFloat32;  // float32; for kSequence dtype too
  int32_t softplus = 0;
  int32_t accumulate = 0;  // whether out and dx are float32 and added to, else stored
  int64_t x_b = 0, x_l = 0, x_d = 0;  // of dx too
  int64_t out_b = 0, out_l = 0, out_d = 0;
  int64_t dout_b = 0, dout_l = 0, dout_d = 0;
};

// Of kImage: x, dout, out and dx contiguous, the last three float32; the last two are added to.
struct ImageParams : ScanParams, ProjectionParams {};

// Of kOneState and kOneStateImage: as kImage, with delta, Bs and Cs or a projection.
struct OneStateParams : ScanParams, DeltaParams, ProjectionParams {
  int32_t one_state = 1;        // warps of 16 channels in a block,
  int32_t one_state_tiles = 1;  // times tiles side by side
  // Blocks of a cluster, whose tiles are side by side as well; where there are several, splits is 1. Needs compute
  // capability 9.0.
  int32_t one_state_blocks = 1;
};

// One sum of a launch: to[i] = scale times the sum over the rows of from[row * count + i], i < count.
struct Reduction {
  const float* from = nullptr;
  void* to = nullptr;
  int64_t count = 0;
  int32_t rows = 1, dtype = kFloat32;  // dtype: of to
  float scale = 1.0f;
  int32_t vectors = 0;  // whether four at a time are aligned: launch_reductions() sets it
};

struct Reductions {
  static constexpr int kMaxParts = 6;
  Reduction parts[kMaxParts];
  int32_t count = 0;
};

}  // namespace swin_umamba
