// Scans of images with one state per channel. With one exponential per step they are bound by instructions:
// tiles come to shared memory by asynchronous copies some tiles ahead, and all else is in registers.
//
// A block has CW warps of 16 channels by TW tiles side by side, which continue over the blocks of a cluster.
// Lane 4i+j of a warp has channels 2i and 2i+1, and of a tile's 32 steps the 8 from 8j on. A lane's 8 steps map a
// state h to P * h + S; such maps are composed over the four lanes of a channel, and over the tiles side by side.
//
// A tile's rows in shared memory are ordered by slots: slot 8m+n is column n of the m-th matrix
// instruction, step 8 * (n / 2) + 2m + n % 2, so that dt comes to the lanes that scan with it, and
// lanes with other steps read other banks. Row n of a matrix is channel 2n, row 8+n channel 2n+1.
#pragma once

#include <cstring>
#include <type_traits>

#include "factors.cuh"
#include "mapping.cuh"
#include "one_state_hand_over.cuh"
#include "one_state_layout.cuh"
#include "one_state_math.cuh"
#include "one_state_sizes.h"

namespace swin_umamba {

// The work of one thread. RB: blocks of 8 ranks; 0 if delta is given rather than computed from
// proj.
template <class T, int RB, Walk kWalk>
struct OneStateThread {
  using T2 = typename Pair<T>::type;
  using F = Factors<T>;
  using Layout = OneStateLayout<T, RB, kWalk>;
  static constexpr bool kGiven = RB == 0;
  static constexpr int kRanks = kGiven ? 1 : RB;
  static constexpr int kHeld = F::k16Bit || RB < 3 ? kRanks : 1;  // blocks of dt_weight kept in registers
  static constexpr int kStages = Layout::kStages;

  const OneStateParams& p;
  int b, k, split, first_tile, last_tile, end;  // end: the first step that is not this block's
  int lane, warp, tile_warp, length;            // warp: which of the channels'; tile_warp: of the block's tiles'
  int channel;  // the first of two: of D, and a valid one in any case
  bool valid;   // whether it is this lane's own
  bool warp_valid, block_valid;  // whether those of all lanes of the warp and the block are
  uint32_t by_height;
  float4* tile_maps;  // in shared memory, the block's
  char* own;       // and this tile_warp's
  int slots;       // the first of this lane's
  // What this thread copies of the rows of x and, of float32, of dy or delta.
  struct Copies {
    const char* from;  // its place in an image's first row
    int slot, step;    // the first, whose step is past the end where there are no such channels
    int to;            // in a stage
  };
  Copies x_copies, float_copies;
  // For this image and direction: rows of proj and of its gradient, y or dx of this lane's
  // channels, and states entering tiles. Computed once, since each costs several instructions.
  const char* proj_from;
  float *proj_to, *states, *image_to;

  // The cluster of B * directions * blocks * splits: `splits` of those that p has, from first_split on.
  __device__ OneStateThread(const OneStateParams& p, int splits, int first_split, float4* shared) : p(p) {
    int i = cluster() / p.blocks;
    split = first_split + i % splits;
    i /= splits;
    k = p.first_direction + i % p.directions;
    b = i / p.directions;
    length = p.H * p.W;
    first_tile = split * p.tiles_per_split;
    last_tile = min(ceil_div(length, kTile), first_tile + p.tiles_per_split);
    end = min(length, last_tile * kTile);
    int thread = threadIdx.x;
    // reading it again would take longer than everything computed from it
    asm volatile("" : "+r"(thread));
    lane = thread % 32;
    warp = thread / 32 % p.one_state;
    tile_warp = thread / 32 / p.one_state;
    const int c = block_channel() + warp * kOneStateChannels + 2 * (lane / 4);
    valid = c < p.D;
    warp_valid = block_channel() + (warp + 1) * kOneStateChannels <= p.D;
    block_valid = block_channel() + p.one_state * kOneStateChannels <= p.D;
    channel = min(c, p.D - 2);
    by_height = 0xffffffffu / static_cast<uint32_t>(p.H);
    tile_maps = shared;
    own = reinterpret_cast<char*>(shared) + Layout::tile_maps_bytes(p) + tile_warp * Layout::tile_bytes(p);
    slots = 2 * (lane % 4);
    if constexpr (Layout::kX) x_copies = copies<Layout::kPieces, Layout::kXRow>(static_cast<const T*>(p.x));
    if constexpr (Layout::kDy || kGiven) {
      const float* from = static_cast<const float*>(Layout::kDy ? p.dout : p.delta);
      float_copies = copies<Layout::kFloats, Layout::kFloatRow>(from);
    }
    if constexpr (!kGiven) {
      proj_from = kept(reinterpret_cast<const char*>(rows(static_cast<const T*>(p.proj))));
      proj_to = kept(rows(p.dproj));
    }
    image_to = kept(static_cast<float*>(kWalk == Walk::kForward ? p.out : p.dx) +
                    static_cast<int64_t>(b) * length * p.D + channel);
    states = p.states + (static_cast<int64_t>(b) * p.K + k) * ceil_div(length, kTile) * p.D + channel;
  }

  // The same, but opaque to the compiler, which can then not recompute it.
  template <class V>
  static __device__ V* kept(V* value) {
    asm volatile("" : "+l"(value));
    return value;
  }

  // Of rows of a (B, L, D) array, kPieces of 16 bytes for a warp.
  template <int kPieces, int kRow, class V>
  __device__ Copies copies(const V* base) const {
    const int pieces = p.one_state * kPieces, piece = tile_thread() % pieces;
    const int c = block_channel() + piece * static_cast<int>(16 / sizeof(V));
    Copies own;
    own.slot = tile_thread() / pieces;
    own.step = c < p.D ? step_of(own.slot) : kTile;
    own.to = 16 * (own.slot * kRow + piece);
    own.from = kept(reinterpret_cast<const char*>(base + static_cast<int64_t>(b) * length * p.D + c));
    return own;
  }

  __device__ int block_channel() const {
    return (p.first_block + cluster() % p.blocks) * p.one_state * kOneStateChannels;
  }
  // Which of the grid's clusters, and of its blocks, this is.
  __device__ int cluster() const { return static_cast<int>(blockIdx.x) / p.one_state_blocks; }
  __device__ int rank() const { return static_cast<int>(blockIdx.x) % p.one_state_blocks; }
  __device__ int tile_threads() const { return 32 * p.one_state; }
  __device__ int tile_thread() const { return 32 * warp + lane; }

  // ---- by channel

  __device__ float2 parameter(const float* values) const {
    return *reinterpret_cast<const float2*>(values + k * p.D + channel);
  }
  // A * log2(e)
  __device__ float2 decay() const {
    const float2 A = parameter(p.A);
    return p.a_is_log ? -kLog2e * exp2_fast(kLog2e * A) : kLog2e * A;
  }
  // Ds of all directions, which add multiples of the same x to y: the first direction does it for
  // all.
  __device__ bool adds_skip() const { return k == 0; }
  __device__ float2 skip() const {
    float2 sum = make_float2(0.0f, 0.0f);
    for (int i = 0; adds_skip() && i < p.K; ++i) {
      const float2 D = *reinterpret_cast<const float2*>(p.Ds + i * p.D + channel);
      sum.x += D.x;
      sum.y += D.y;
    }
    return sum;
  }
  __device__ int64_t split_row(int split) const {
    return ((static_cast<int64_t>(b) * p.K + k) * p.splits + split) * p.D + channel;
  }
  __device__ Affine split_map(int split) const {
    const int64_t row = split_row(split);
    return {*reinterpret_cast<const float2*>(p.split_dt + row),
            *reinterpret_cast<const float2*>(p.split_state + row)};
  }
  __device__ void save_split_map(const Affine& map) const {
    if (tile_warp != 0 || lane % 4 != 0 || !valid) return;
    const int64_t row = split_row(split);
    *reinterpret_cast<float2*>(p.split_dt + row) = map.P;
    *reinterpret_cast<float2*>(p.split_state + row) = map.S;
  }
  // The state entering a tile, or this block's last tile if there is no such tile.
  __device__ float* state(int tile) const { return row_at(states, min(tile, last_tile - 1), p.D * sizeof(float)); }

  // ---- by tile

  // Tiles side by side, and which of them is this warp's.
  __device__ int abreast() const { return p.one_state_tiles * p.one_state_blocks; }
  __device__ int own_tile() const { return rank() * p.one_state_tiles + tile_warp; }
  __device__ void sync_cluster() const { sync_blocks(p.one_state_blocks); }
  // Waits for the warps that work on the same tile.
  __device__ void sync_tile() const {
    // with the barrier number in a register, a block would reserve all barriers of four blocks
    switch (tile_warp) {
      case 0: return named_barrier<1>();
      case 1: return named_barrier<2>();
      case 2: return named_barrier<3>();
      default: return named_barrier<4>();
    }
  }
  template <int kBarrier>
  __device__ void named_barrier() const {
    asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "r"(tile_threads()) : "memory");
  }
  // Of the groups of tiles side by side, the last one's first tile.
  __device__ int last_group() const {
    return first_tile + (last_tile - 1 - first_tile) / abreast() * abreast();
  }
  // Number of steps of a tile that exist and belong to this block.
  __device__ int steps(int tile) const { return min(kTile, end - tile * kTile); }
  // Slots and steps: see above.
  static __device__ int step_of(int slot) { return slot % 8 / 2 * 8 + slot / 8 * 2 + slot % 2; }
  static __device__ constexpr int slot(int i) { return slot_of(i); }
  // Whether all of a tile's steps and all of the warp's channels exist: then no bounds checks are
  // needed.
  __device__ bool is_whole(int count) const { return warp_valid && count == kTile; }
  // How many of this lane's steps exist.
  __device__ int own_steps(int count) const { return valid ? count - 8 * (lane % 4) : 0; }

  // Position in the image of the step of this lane's slot; past the end, some valid position.
  __device__ int place(int tile) const {
    const int step = min(tile * kTile + step_of(lane), length - 1);
    const int l = (k & 2) ? length - 1 - step : step;
    if (!(k & 1)) return l;
    int column = __umulhi(l, by_height);  // l / H, or one less
    int row = l - column * p.H;
    if (row >= p.H) {
      ++column;
      row -= p.H;
    }
    return row * p.W + column;
  }

  template <class V>
  static __device__ V* row_at(V* base, int at, uint32_t bytes) {
    using Byte = std::conditional_t<std::is_const_v<V>, const char, char>;
    return reinterpret_cast<V*>(reinterpret_cast<Byte*>(base) + static_cast<uint64_t>(static_cast<uint32_t>(at)) * bytes);
  }
  // Rows of (B, L, K, R + 2): of proj, or its gradient.
  __device__ int width() const { return p.R + 2; }
  template <class V>
  __device__ V* rows(V* base) const {
    return base + (static_cast<int64_t>(b) * length * p.K + k) * width();
  }

  // The turn-th tile's memory: places of its slots, and what was copied.
  __device__ int* places(int turn) const {
    return reinterpret_cast<int*>(own + 16 * Layout::kPlace) + turn % Layout::kPlaces * kTile;
  }
  __device__ char* stage(int turn) const { return own + turn % kStages * (16 * Layout::kStage); }
  // By slot, gradients that one warp of channels computed: of ranks, and of Bs and Cs.
  __device__ float* rank_sums(int warp) const {
    return reinterpret_cast<float*>(own + 16 * (Layout::kSums + warp * Layout::kSum));
  }
  __device__ float2* map_sums(int warp) const {
    return reinterpret_cast<float2*>(rank_sums(warp) + kTile * Layout::kRankRow);
  }

  template <bool kWhole, int kPieces, int kRow>
  __device__ void copy_rows(char* to, const Copies& own, uint32_t row_bytes, int at, int count) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      constexpr int kSlots = kTile / kPieces;
      copy_async_if<16>(kWhole || own.step + i * (kSlots / 4) < count, to + own.to + 16 * i * kSlots * kRow,
                        row_at(own.from, from_lane(at, own.slot + i * kSlots), row_bytes));
    }
  }

  // Starts the copies of a tile.
  __device__ void load(int tile, int turn) const {
    const int count = steps(tile);
    if (block_valid && count == kTile) {
      copy<true>(tile, turn, count);
    } else if (count > 0) {
      copy<false>(tile, turn, count);
    }
  }
  template <bool kWhole>
  __device__ void copy(int tile, int turn, int count) const {
    const int at = place(tile);
    if (warp == 0) places(turn)[lane] = at;
    char* to = stage(turn);
    if constexpr (Layout::kX) {
      copy_rows<kWhole, Layout::kPieces, Layout::kXRow>(to, x_copies, p.D * sizeof(T), at, count);
    }
    if constexpr (Layout::kDy) {
      copy_rows<kWhole, Layout::kFloats, Layout::kFloatRow>(to + 16 * Layout::kGradient, float_copies,
                                                            p.D * sizeof(float), at, count);
    }
    if constexpr (kGiven) {
      Copies delta = float_copies;
      delta.from = reinterpret_cast<const char*>(static_cast<const float*>(p.delta) + k * p.delta_k) +
                   (delta.from - static_cast<const char*>(Layout::kDy ? p.dout : p.delta));
      copy_rows<kWhole, Layout::kFloats, Layout::kFloatRow>(to + 16 * Layout::kDelta, delta, p.D * sizeof(float), at,
                                                            count);
      if (warp == 0) {
        const int64_t map = b * p.bc_b + k * p.bc_k + at * p.bc_l;
        reinterpret_cast<float2*>(to + 16 * Layout::kProj)[lane] =
            make_float2(load_as_float(p.Bs, map, p.dtype), load_as_float(p.Cs, map, p.dtype));
      }
    } else {
      const int bytes = width() * sizeof(T);
      const char* row = row_at(proj_from, at, p.K * bytes);
      char* shared = to + 16 * (Layout::kProj + lane * Layout::kProjRow);
      const bool exists = kWhole || step_of(lane) < count;
      constexpr int kPair = 2 * sizeof(T);
      if (bytes % 16 == 0) {
#pragma unroll 1
        for (int i = 16 * warp; i < bytes; i += 16 * p.one_state) copy_async_if<16>(exists, shared + i, row + i);
      } else {
#pragma unroll 1
        for (int i = kPair * warp; i < bytes; i += kPair * p.one_state) copy_async_if<kPair>(exists, shared + i, row + i);
      }
    }
  }

  // Zeros for what is never copied: channels and ranks that do not exist and, since backward walks
  // begin with the last tile, its steps past the end.
  __device__ void clear() const {
    if (lane < 8) *handed(tile_warp, lane) = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float4* to = reinterpret_cast<float4*>(own);
    for (int i = tile_thread(); i < kStages * Layout::kStage; i += tile_threads()) {
      to[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
  }

  using Tile = OneStateTile<T, RB, kWalk>;
  __device__ Tile tile(int turn) const {
    const char* from = stage(turn);
    const auto row = [&](int array, int row_pieces, int pieces) {
      return from + 16 * (array + slots * row_pieces + warp * pieces);
    };
    Tile v;
    v.x_at = reinterpret_cast<const T2*>(row(0, Layout::kXRow, Layout::kPieces)) + lane / 4;
    v.dy_at = reinterpret_cast<const float2*>(row(Layout::kGradient, Layout::kFloatRow, Layout::kFloats)) + lane / 4;
    v.delta_at = reinterpret_cast<const float2*>(row(Layout::kDelta, Layout::kFloatRow, Layout::kFloats)) + lane / 4;
    v.maps_at = from + 16 * Layout::kProj +
                (kGiven ? slots * sizeof(float2) : slots * Layout::kProjRow * 16 + p.R * sizeof(T));
    if constexpr (F::k16Bit) {
      v.ranks_at = v.turned_ranks_at = from + 16 * (Layout::kProj + lane * Layout::kProjRow);
    } else {
      v.ranks_at = from + 16 * (Layout::kProj + lane / 4 * Layout::kProjRow) + 4 * (lane % 4);
      v.turned_ranks_at = from + 16 * (Layout::kProj + slots * Layout::kProjRow) + 4 * (lane / 4);
    }
    v.places_at = reinterpret_cast<const int2*>(places(turn) + slots);
    return v;
  }

  // The r-th block of dt_weight as a factor: rows are channels, columns ranks. Of float32 the unsplit values;
  // more than two such blocks would spill registers, so the others stay in the L1 cache.
  using Weights = std::conditional_t<F::k16Bit, typename F::A, float4>;
  __device__ Weights weights(int r) const {
    if constexpr (F::k16Bit) {
      const int rank = 8 * r + 2 * (lane % 4);
      const T* row = static_cast<const T*>(p.dt_weight) + (static_cast<int64_t>(k) * p.D + channel) * p.R + rank;
      return {rank < p.R && valid ? __ldg(reinterpret_cast<const uint32_t*>(row)) : 0,
              rank < p.R && valid ? __ldg(reinterpret_cast<const uint32_t*>(row + p.R)) : 0};
    } else {
      const int own = warp * kOneStateChannels + 2 * (lane / 4), rank = 8 * r + lane % 4;
      return make_float4(weight(own, rank), weight(own + 1, rank), weight(own, rank + 4), weight(own + 1, rank + 4));
    }
  }
  __device__ void hold(Weights (&held)[kHeld]) const {
    if constexpr (!kGiven && kHeld == kRanks) {
#pragma unroll
      for (int r = 0; r < kRanks; ++r) held[r] = weights(r);
    }
  }
  __device__ typename F::A factor(const Weights (&held)[kHeld], int r) const {
    if constexpr (F::k16Bit) {
      return held[r];
    } else {
      const Weights w = kHeld == kRanks ? held[r] : weights(r);
      return F::a(w.x, w.y, w.z, w.w);
    }
  }
  // Of one of the block's channels; zero where it or the rank does not exist.
  __device__ float weight(int of_block, int rank) const {
    const int c = block_channel() + of_block;
    const bool exists = c < p.D && rank < p.R;
    return exists ? __ldg(static_cast<const float*>(p.dt_weight) + (static_cast<int64_t>(k) * p.D + c) * p.R + rank) : 0.0f;
  }
  static __device__ void store_products(float* rank_sums, int r, int m, const float (&products)[4]) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      *reinterpret_cast<float2*>(rank_sums + (m + e) * 8 * Layout::kRankRow + 8 * r) =
          make_float2(products[2 * e], products[2 * e + 1]);
    }
  }
  // d = a @ b + rows c.x of the first eight, c.y of the others.
  static __device__ void multiply(float (&d)[4], const typename F::A& a, const typename F::B& b, float2 c) {
    if constexpr (F::k16Bit) {
      swin_umamba::multiply<T>(d, a.pairs, b.pairs, c);
    } else {
      d[0] = d[1] = c.x, d[2] = d[3] = c.y;
      F::multiply_add(d, a, b);
    }
  }

  // dt of both channels before softplus.
  __device__ void delta(const Tile& tile, const Weights (&held)[kHeld], float2 bias,
                        float2 (&dt)[kOneStateSteps]) const {
    if constexpr (kGiven) {
#pragma unroll
      for (int i = 0; i < kOneStateSteps; ++i) {
        const float2 v = tile.delta(i);
        dt[i] = make_float2(v.x + bias.x, v.y + bias.y);
      }
    } else {
      float sums[4][4];
#pragma unroll
      for (int r = 0; r < kRanks; ++r) {
        typename F::B columns[4];
        tile.template ranks<false>(r, columns);
        const auto a = factor(held, r);
#pragma unroll
        for (int m = 0; m < 4; ++m) {
          if (r == 0) {
            multiply(sums[m], a, columns[m], bias);
          } else {
            F::multiply_add(sums[m], a, columns[m]);
          }
        }
      }
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        dt[2 * m] = make_float2(sums[m][0], sums[m][2]);
        dt[2 * m + 1] = make_float2(sums[m][1], sums[m][3]);
      }
    }
  }
  // softplus, given delta and delta times log2(e).
  static __device__ float2 steps_of(float2 delta, float2 scaled) {
    return kGiven || !F::k16Bit ? make_float2(softplus(delta.x), softplus(delta.y))
                  : make_float2(softplus_16bit(delta.x, scaled.x), softplus_16bit(delta.y, scaled.y));
  }

  // The maps of the block's tiles composed in their order. `carry` goes in as what was composed before,
  // applied to the state (S) and to one (P), and comes out as that and the block's; the result is the
  // state that enters this thread's tile.
  template <bool kReverse>
  __device__ float2 compose_tiles(const Affine& map, Affine& carry, int turn) const {
    float2 entering = carry.S;
    const int tiles = p.one_state_tiles;
    if (tiles == 1) {
      carry = {map.P * carry.P, map(carry.S)};
      return entering;
    }
    const int row = 8 * p.one_state;
    float4* all = tile_maps + turn % 2 * tiles * row + 8 * warp + lane / 4;
    if (lane % 4 == 0) all[tile_warp * row] = make_float4(map.P.x, map.P.y, map.S.x, map.S.y);
    __syncthreads();
#pragma unroll 4
    for (int i = 0; i < tiles; ++i) {
      const int w = kReverse ? tiles - 1 - i : i;
      const float4 v = all[w * row];
      const Affine other{make_float2(v.x, v.y), make_float2(v.z, v.w)};
      if (w == tile_warp) entering = carry.S;
      carry = {other.P * carry.P, other(carry.S)};
    }
    return entering;
  }

  // Where the warp of the tile before puts what enters this tile_warp's tile, of this warp's i-th pair of channels:
  // each value beside the number of the turn, in one word.
  __device__ float4* handed(int tile_warp, int i) const { return tile_maps + (tile_warp * p.one_state + warp) * 8 + i; }
  // Puts v where the warp of the next tile in walking order, which may be another block's, receives it.
  template <bool kReverse>
  __device__ void send(float2 v, int number) const {
    const int end = kReverse ? 0 : p.one_state_tiles - 1, begin = kReverse ? p.one_state_tiles - 1 : 0;
    const bool leaves = tile_warp == end;
    float4* to = handed(leaves ? begin : tile_warp + (kReverse ? -1 : 1), lane / 4);
    if (leaves && p.one_state_blocks > 1) {
      send_to_block(to, (rank() + (kReverse ? p.one_state_blocks - 1 : 1)) % p.one_state_blocks, v, number);
    } else {
      send_to_warp(to, v, number);
    }
  }

  // What enters this lane, by the maps of all lanes' steps: `at_tile`, what enters the tile, comes from the warp of
  // the tile before, and what leaves it goes to the next, so that no barrier stops the tiles side by side.
  // `carry` goes in as what enters the first tile.
  template <bool kReverse>
  __device__ float2 hand_over(Affine map, float2& carry, float2& at_tile, int turn) const {
    if (abreast() == 1) {
      at_tile = carry;
      const float2 entering = chain_lanes<kReverse>(map, at_tile, lane);
      carry = from_lane(map(entering), kReverse ? lane & ~3 : lane | 3);
      return entering;
    }
    const Affine before = compose_lanes<kReverse>(map, lane);
    // from the last of the tiles side by side, one turn before
    const bool is_first = own_tile() == (kReverse ? abreast() - 1 : 0);
    const int number = is_first ? turn : turn + 1;
    at_tile = number > 0 ? receive(handed(tile_warp, lane / 4), number) : carry;
    __syncwarp();
    if (lane % 4 == 0) send<kReverse>(map(at_tile), turn + 1);
    return before(at_tile);
  }
};

}  // namespace swin_umamba
