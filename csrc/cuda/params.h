// What a scan launch needs to know. Plain data: Python fills the fields, no torch type appears.
#pragma once

#include <cstdint>

namespace swin_umamba {

enum DType : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

// Atomic additions take subnormal numbers for 0, which gradients by A of tiny steps are.
constexpr float kSumScale = 1 << 24;

// Numbers that a launch over so many ranges of sequences counts in: turns taken, and legs that are
// through, for every warp of a block. See legs.cuh.
constexpr int kMostWarps = 4;
constexpr int64_t leg_counters(int64_t ranges) { return 1 + kMostWarps * ranges; }

// Letters: B batch, K directions, D channels, L steps (H * W), N states, G groups, R dt_rank.
// A stride counts elements. A null pointer means "not given" or "not wanted".
struct ScanParams {
  // Sizes.
  int32_t B = 0, K = 1, D = 0, H = 1, W = 0, N = 0, G = 1, R = 0;
  int32_t dtype = kFloat32;  // of x, Bs, Cs, dt_weight and dx
  int32_t delta_dtype = kFloat32;  // of delta and ddelta
  int32_t out_dtype = kFloat32, dout_dtype = kFloat32;

  // The part of the grid that this launch covers (all of it, unless determinism asks for an order).
  int32_t first_direction = 0, directions = 1;
  int32_t first_block = 0, blocks = 1;  // of channels, see channel_blocks()

  // The sequence cut into `splits` ranges of `tiles_per_split` tiles, worked on side by side.
  int32_t splits = 1, tiles_per_split = 0;
  // And each range into `legs` of `tiles_per_leg` tiles, one after the other: see legs.cuh.
  int32_t legs = 1, tiles_per_leg = 0;
  // Bytes of shared memory that a block takes at least, so that few are on a multiprocessor at a time.
  int32_t least_shared = 0;

  // Inputs. x: (B, L, D); delta: (B, K, L, D), before bias and softplus; Bs, Cs: (B, K * G, L, N).
  const void* x = nullptr;
  int64_t x_b = 0, x_l = 0, x_d = 0;
  const void* delta = nullptr;
  int64_t delta_b = 0, delta_k = 0, delta_l = 0, delta_d = 0;
  const void* Bs = nullptr;
  const void* Cs = nullptr;
  int64_t bc_b = 0, bc_k = 0, bc_l = 0, bc_n = 0;
  // Where set, K is 1, x, delta, Bs, Cs, dx and ddelta are of dtype, their steps lie side by side
  // (strides of 1) and every row of steps starts at a multiple of four values.
  int32_t sequence = 0;
  // In place of delta, Bs and Cs: proj (B, L, K, R + 2N) and dt_weight (K, D, R), both contiguous.
  const void* proj = nullptr;
  const void* dt_weight = nullptr;
  const float* A = nullptr;      // (K * D, N); with a_is_log, A = -exp of what is stored
  const float* Ds = nullptr;     // (K * D)
  const float* bias = nullptr;   // (K * D)
  int32_t a_is_log = 0, softplus = 0;

  // Forward outputs. out: (B, L, D), added to where `accumulate`, else stored.
  void* out = nullptr;
  int64_t out_b = 0, out_l = 0, out_d = 0;
  int32_t accumulate = 0;
  float* states = nullptr;       // (B, K, tiles, D, N): the state entering each tile
  float* last_state = nullptr;   // (B, K * D, N)
  float* split_state = nullptr;  // (B, K, splits, D, N): what a split adds to a zero state
  // (B, K, splits, D): the sum of dt over a split; of one_state, what the split multiplies a state by.
  float* split_dt = nullptr;
  float* leg_state = nullptr;    // (B, K, splits, D, N): what a leg leaves to the next
  int32_t* leg_turns = nullptr;  // (2, leg_counters(B * directions * blocks * splits)) zeros: a row a launch

  // Backward. dout: (B, L, D), float32, or of dtype where `sequence` is set; dx, ddelta, dBs, dCs are
  // laid out as their inputs' strides say, dx and dBs, dCs in float32 where they are added to.
  const void* dout = nullptr;
  int64_t dout_b = 0, dout_l = 0, dout_d = 0;
  const float* dlast = nullptr;  // (B, K * D, N)
  void* dx = nullptr;
  void* ddelta = nullptr;
  float* dBs = nullptr;
  float* dCs = nullptr;
  float* dproj = nullptr;        // (B, L, K, R + 2N), in place of ddelta, dBs and dCs
  // The parameters' gradients times kSumScale, added to; split after split and image after image take
  // rows in turns.
  int32_t sum_rows = 1;
  float* dA = nullptr;           // (sum_rows, K * D, N); of the log where a_is_log
  float* dDs = nullptr;          // (sum_rows, K * D)
  float* dbias = nullptr;        // (sum_rows, K * D)
  float* ddt_weight = nullptr;   // (sum_rows, K, D, R)

  // Where set, N is 1, and a block has so many warps of 16 channels by tiles side by side: see one_state.cuh.
  int32_t one_state = 0, one_state_tiles = 1;
};

// to[i] = scale times the sum of from[row * count + i] over the rows, i < count.
struct Total {
  const float* from = nullptr;
  void* to = nullptr;
  int64_t count = 0;
  int32_t rows = 1, dtype = kFloat32;
  float scale = 1.0f;
  int32_t vectors = 0;  // whether four at a time are aligned: launch_totals() finds out
};

struct Totals {
  static constexpr int kMost = 6;
  Total parts[kMost];
  int32_t count = 0;
};

}  // namespace swin_umamba
