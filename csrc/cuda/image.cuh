// Loads images in channels-last memory: dt is computed on the spot, from the R values of its low-rank
// projection, by matrix instructions, and never exists in memory; nor does its gradient.
#pragma once

#include <type_traits>

#include "factors.cuh"
#include "gradient_tile.cuh"
#include "mapping.cuh"
#include "math.cuh"
#include "matrix.cuh"
#include "parameter_sums.cuh"
#include "state_sums.cuh"

namespace swin_umamba {

template <class M_, class T, bool kPieces, Walk kWalk>
struct ImageLoader {
  using M = M_;
  using Params = ImageParams;
  using T2 = typename Pair<T>::type;
  using F = Factors<T>;
  static constexpr bool kBackward = kWalk == Walk::kBackward, kReverse = kWalk != Walk::kForward;
  static constexpr bool kCarry = kWalk == Walk::kCarry;  // of dout, which takes the place of x
  using X = std::conditional_t<kCarry, float, T>;
  using X2 = typename Pair<X>::type;
  static constexpr bool k16Bit = sizeof(T) == 2;
  // Tiles of x in flight: the one being loaded, the one being staged, and forwards two whose y is not
  // written yet. Rows of proj are read while staging only.
  static constexpr int kXTiles = kBackward ? 1 : kCarry ? 2 : 4, kProjTiles = kBackward ? 1 : 2;
  static constexpr int kPlaces = kBackward ? 2 : 4;  // backwards dproj is written after the next load
  static constexpr int kXRow = M::kChannels + 16 / sizeof(X);  // 16-byte rows, four banks apart
  static constexpr int kDyRow = M::kChannels + 4;   // of float
  static constexpr int kColumns = M::WC / 8;        // 8-channel blocks of a warp
  static constexpr float kNoStep = -1e30f;          // softplus of it is 0
  // Bytes of Bs and Cs of float32 until they are staged: backwards they are copied to where they are read.
  static constexpr int kMapsApart = k16Bit || kBackward ? 0 : kProjTiles * kTile * 2 * M::N * 4;

  // Rank padded to the matrix instructions' 8; words of a staged row of proj, four banks apart.
  static __host__ __device__ int padded_rank(int R) { return (R + 7) / 8 * 8; }
  static __host__ __device__ int proj_words(const Params& p) {
    if constexpr (!k16Bit) return padded_rank(p.R) + 4;  // Bs and Cs lie apart
    const int words = (p.R + 2 * M::N > padded_rank(p.R) ? p.R + 2 * M::N : padded_rank(p.R)) / 2;
    return (words + 3) / 8 * 8 + 4;
  }
  static __host__ __device__ int shared_bytes(const Params& p) {
    const int tiles = kTile * (kXTiles * kXRow * sizeof(X) + kPlaces * 4 + kProjTiles * proj_words(p) * 4);
    return tiles + (kBackward ? kTile * kDyRow * 4 : kMapsApart);
  }

  ParameterSums<M> parameter_sums;

  const Params& p;
  const Block& w;
  const Lane<M>& t;
  // Arrays of fixed size come first in shared memory, so that their offsets are constants.
  X* x_tiles;         // (kXTiles, kTile, kXRow)
  int* places;        // (kPlaces, kTile): positions in the image of the steps of a tile
  float* dy;          // (kTile, kDyRow), backward only
  float* maps;        // (kProjTiles, kTile, 2N): Bs and Cs, of float32 only
  uint32_t* p_tiles;  // (kProjTiles, kTile, words): rows of proj, of float32 without Bs and Cs
  __device__ int rank() const { return padded_rank(p.R); }
  __device__ int words() const { return proj_words(p); }

  __device__ ImageLoader(const Params& p, const Block& w, const Lane<M>& t, char* own)
      : p(p), w(w), t(t) {
    x_tiles = reinterpret_cast<X*>(own);
    places = reinterpret_cast<int*>(x_tiles + kXTiles * kTile * kXRow);
    dy = reinterpret_cast<float*>(places + kPlaces * kTile);
    maps = dy + (kBackward ? kTile * kDyRow : 0);
    p_tiles = reinterpret_cast<uint32_t*>(reinterpret_cast<char*>(maps) + kMapsApart);
  }

  __device__ X* x_of(int tile) const { return x_tiles + (tile - w.first_tile) % kXTiles * kTile * kXRow; }
  __device__ int* places_of(int tile) const { return places + (tile - w.first_tile) % kPlaces * kTile; }
  __device__ uint32_t* proj_of(int tile) const {
    return p_tiles + (tile - w.first_tile) % kProjTiles * kTile * words();
  }
  __device__ float* maps_of(int tile) const { return maps + (tile - w.first_tile) % kProjTiles * kTile * 2 * M::N; }

  // Lane 4i+j stages rows i + 8 * _, channels 8 * column + 2j + {0, 1} of its warp.
  static __device__ int lane_channel(const Lane<M>& t, int column) {
    return t.warp * M::WC + 8 * column + 2 * (t.lane % 4);
  }

  __device__ void begin(float* bc) {
    if constexpr (kBackward && !k16Bit) maps = bc;
    load(w.tile<kReverse>(0));
  }

  // Positions of the tile's steps: this lane's as the result, all of them in shared memory.
  __device__ int place(int tile) const {
    const int at = w.lane_position(p, tile);
    if (t.warp == 0) places_of(tile)[t.lane] = at;
    return at;
  }

  // This lane's pair of an 8x8 block of dt_weight, as load_blocks() would give it untransposed: the rows
  // are the block's channels from `channel` on, the columns ranks from r on. They stay in the L1 cache; in
  // shared memory they would reduce occupancy.
  __device__ uint32_t weight_block(const Lane<M>& t, int channel, int r) const {
    const int c = w.channel + channel + t.lane / 4, column = r + 2 * (t.lane % 4);
    if (c >= w.channel_end || column >= p.R) return 0;
    const int pair = ((w.k * p.D + c) * p.R + column) / 2;  // R is even, and at most 64
    return static_cast<const uint32_t*>(p.dt_weight)[pair];
  }
  // The same as a factor: rows are ranks and columns channels, transposed the other way round.
  template <bool kTransposed>
  __device__ typename F::B weights(const Lane<M>& t, int channel, int r) const {
    if constexpr (k16Bit) {
      const uint32_t block = weight_block(t, channel, r);
      return {kTransposed ? transposed(block) : block};
    } else {
      const auto weight = [&](int row) {
        const int c = w.channel + channel + (kTransposed ? row : t.lane / 4);
        const int column = r + (kTransposed ? t.lane / 4 : row);
        const bool exists = c < w.channel_end && column < p.R;
        return exists ? static_cast<const float*>(p.dt_weight)[(w.k * p.D + c) * p.R + column] : 0.0f;
      };
      return F::b(weight(t.lane % 4), weight(t.lane % 4 + 4));
    }
  }

  // Two values of a (K, D) parameter, for this lane's channels of a column; zeros past the end.
  __device__ float2 parameter(const float* values, const Lane<M>& t, int column) const {
    const int c = w.channel + lane_channel(t, column);
    return c < w.channel_end ? *reinterpret_cast<const float2*>(values + w.k * p.D + c)
                             : make_float2(0.0f, 0.0f);
  }

  // Rows of kRowBytes, 16 bytes per lane.
  template <int kRowBytes>
  __device__ void load_rows(const Lane<M>& t, void* to, int to_stride, const void* from, uint32_t row_bytes, int at,
                            int count, int value_bytes) const {
    constexpr int kChunks = kRowBytes / 16, kItems = kTile * kChunks;
    static_assert(kItems % M::kThreads == 0, "every lane has as many to load");
#pragma unroll
    for (int first = 0; first < kItems; first += M::kThreads) {
      const int i = first + t.thread(), row = i / kChunks, chunk = i % kChunks;
      const uint32_t pos = __shfl_sync(~0u, at, row);
      const bool valid = row < count && w.channel + chunk * 16 / value_bytes < w.channel_end;
      // A channel past the end is not read, only its address is computed.
      copy_async<16>(static_cast<char*>(to) + row * to_stride + chunk * 16,
                     static_cast<const char*>(from) + static_cast<uint64_t>(pos) * row_bytes + chunk * 16,
                     valid);
    }
  }

  __device__ void load(int tile) {
    if (tile < w.first_tile || tile >= w.last_tile) return;
    load(tile, place(tile));
  }

  __device__ void load(int tile, int at) {
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    const int count = w.steps(tile);
    const int64_t image = static_cast<int64_t>(kBackward ? recompute(w.b) : w.b) * w.length;
    constexpr int kItem = sizeof(X);
    const X* x = static_cast<const X*>(kCarry ? p.dout : p.x) + image * p.D + w.channel;
    load_rows<M::kChannels * kItem>(t, x_of(tile), kXRow * kItem, x, p.D * kItem, at, count, kItem);
    if constexpr (kBackward) {
      const float* dout = static_cast<const float*>(p.dout) + image * p.D + w.channel;
      load_rows<M::kChannels * 4>(t, dy, kDyRow * 4, dout, p.D * 4u, at, count, 4);
    }
    // Rows of proj, by pieces or by words. Lanes that share a row are adjacent: from copy to copy only
    // the row's address changes.
    constexpr int kWords = kPieces ? 4 : k16Bit ? 1 : 2, kLanes = kPieces ? 8 : k16Bit ? 32 : 16;
    constexpr int kRows = M::kThreads / kLanes;  // at a time
    const int width = p.R + 2 * M::N, words = this->words();
    const T* rows = static_cast<const T*>(p.proj) + (image * p.K + w.k) * width;
    uint32_t* to = proj_of(tile);
    const uint32_t row_bytes = p.K * width * static_cast<uint32_t>(sizeof(T)), row_words = width * sizeof(T) / 4;
    const uint32_t first = kLanes == 32 ? t.lane : t.lane % kLanes * kWords;
    for (uint32_t word = first; word - first < row_words; word += kLanes * kWords) {
      const char* from = reinterpret_cast<const char*>(rows + 4 / sizeof(T) * word);
      const bool is_map = !k16Bit && word >= static_cast<uint32_t>(p.R);
      float* map = maps_of(tile) + (word - p.R);
#pragma unroll
      for (int i = 0; i < kTile / kRows; ++i) {
        const int row = i * kRows + (kLanes == 32 ? t.warp : t.thread() / kLanes);
        const uint32_t pos = __shfl_sync(~0u, at, row);
        if (word < row_words) {
          void* shared = is_map ? static_cast<void*>(map + row * 2 * M::N) : to + row * words + word;
          copy_async<4 * kWords>(shared, from + static_cast<uint64_t>(pos) * row_bytes, row < count);
        }
      }
    }
  }

  __device__ void wait() { wait_for_copies(); }

  __device__ const float* dy_row(int step) const { return dy + step * kDyRow + t.warp * M::WC; }

  // What prepare() reads from global memory, requested before the wait for the tile.
  struct Prefetched {
    float2 bias[kColumns];
  };
  __device__ Prefetched prefetch(int) const {
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    Prefetched a;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) a.bias[j] = parameter(p.bias, t, j);
    return a;
  }

  // After the copies have landed and a barrier.
  __device__ void prepare(int tile, const Prefetched& prefetched, const Stage<M, kBackward>& stage) {
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    const int count = w.steps(tile);
    const int rank = this->rank(), words = this->words();
    const X* x_tile = x_of(tile);
    const uint32_t* p_tile = proj_of(tile);
    // All loads of a kind before the stores, across which the compiler does not move them; and no branch
    // around a step that does not exist: each would expose the latency of what it skips.
    constexpr bool kStagesMaps = k16Bit || !kBackward;
    constexpr int kPairs = kStagesMaps ? (kTile * M::N + M::kThreads - 1) / M::kThreads : 0;
    T2 bc[kPairs + 1];  // pairs: N / 2 of a step's Bs, then N / 2 of its Cs
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int pair = i * M::kThreads + t.thread(), step = pair / M::N % kTile, n = pair % M::N;
      bc[i] = k16Bit ? reinterpret_cast<const T2*>(p_tile + step * words + p.R / 2)[n]
                     : reinterpret_cast<const T2*>(maps_of(tile))[pair % (kTile * M::N)];
    }
    float dt[2][kColumns][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const float2 bias = prefetched.bias[j];
        dt[half][j][0] = dt[half][j][2] = bias.x;
        dt[half][j][1] = dt[half][j][3] = bias.y;
      }
    }
#pragma unroll 1
    for (int r = 0; r < rank; r += 8) {
      typename F::A a[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const T* rows = reinterpret_cast<const T*>(p_tile + 16 * half * words) + r;
        a[half] = F::rows(rows, words * 4 / sizeof(T), t.lane, p.R - r);
      }
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const auto b = weights<false>(t, t.warp * M::WC + 8 * j, r);
        F::multiply_add(dt[0][j], a[0], b);
        F::multiply_add(dt[1][j], a[1], b);
      }
    }
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int pair = i * M::kThreads + t.thread();
      if (kTile * M::N % M::kThreads == 0 || pair < kTile * M::N) {
        reinterpret_cast<float2*>(stage.bc)[pair] = to_float2(bc[i]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      X2 x[2][kColumns];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int step = 16 * half + 8 * e + t.lane / 4;
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          x[e][j] = *reinterpret_cast<const X2*>(x_tile + step * kXRow + lane_channel(t, j));
        }
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int step = 16 * half + 8 * e + t.lane / 4;
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          const float2 v = to_float2(x[e][j]);
          const float d0 = softplus(step < count ? dt[half][j][2 * e] : kNoStep);
          const float d1 = softplus(step < count ? dt[half][j][2 * e + 1] : kNoStep);
          *reinterpret_cast<float4*>(stage.steps + step * stage.kRow + 2 * (8 * j + 2 * (t.lane % 4))) =
              kCarry ? make_float4(d0, v.x, d1, v.y) : make_float4(d0, d0 * v.x, d1, d1 * v.y);
        }
      }
    }
  }

  __device__ void write_outputs(int tile, const Stage<M, kBackward>& stage) {
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    constexpr int kQuads = M::WC / 4, kRows = 32 / kQuads;
    const int count = w.steps(tile);
    const int channel = 4 * (t.lane % kQuads);
    const int c = w.channel + t.warp * M::WC + channel;
    const bool channel_valid = c < w.channel_end;
    float4 D4 = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (channel_valid) D4 = *reinterpret_cast<const float4*>(p.Ds + w.k * p.D + c);
    float* out = static_cast<float*>(p.out) + static_cast<int64_t>(w.b) * w.length * p.D + c;
#pragma unroll
    for (int first = 0; first < kTile; first += kRows) {
      const int step = first + t.lane / kQuads;
      const int64_t pos = places_of(tile)[step];
      if (step >= count || !channel_valid) continue;
      const float4 y = *reinterpret_cast<const float4*>(stage.steps + step * stage.kRow + channel);
      const T2* x =
          reinterpret_cast<const T2*>(x_of(tile) + step * kXRow + t.warp * M::WC + channel);
      const float2 x01 = to_float2(x[0]), x23 = to_float2(x[1]);
      add_to(out + pos * p.D, make_float4(fmaf(D4.x, x01.x, y.x), fmaf(D4.y, x01.y, y.y),
                                          fmaf(D4.z, x23.x, y.z), fmaf(D4.w, x23.y, y.w)));
    }
  }

  // A warp's ddelta, (kTile, kDdeltaRow): overwrites the steps' dt, for the products with it.
  static constexpr int kDdeltaRow = Stage<M, kBackward>::kRow * 4 / sizeof(T);
  static __device__ T* ddelta_of(const Stage<M, kBackward>& stage, int warp) {
    return reinterpret_cast<T*>(stage.bc + stage.kBcFloats + warp * kTile * stage.kRow);
  }

  // The backward pass: image_gradients.cuh.
  __device__ void write_gradients(int tile, const GradientTile<M>& tile_sums, const Stage<M, kBackward>& stage);
  __device__ void add_weight_gradients(int tile, const Lane<M>& t, const T* ddelta);
  __device__ void write_block_gradients(int tile, const GradientTile<M>& sums, const Stage<M, kBackward>& stage);

  __device__ void finish() { parameter_sums.write(p, w, t); }
};

}  // namespace swin_umamba
