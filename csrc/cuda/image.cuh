// Loads 16-bit images in channels-last memory: dt is computed on the spot, from the R values of its
// low-rank projection, by matrix instructions, and never exists in memory; nor does its gradient.
#pragma once

#include <type_traits>

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
  static constexpr bool kBackward = kWalk == Walk::kBackward, kReverse = kWalk != Walk::kForward;
  static constexpr bool kCarry = kWalk == Walk::kCarry;  // of dout, which takes the place of x
  using X = std::conditional_t<kCarry, float, T>;
  using X2 = typename Pair<X>::type;
  static constexpr bool k16Bit = true;
  // Tiles of x on the way: the one being loaded, the one being staged, and forwards two whose y is not
  // written yet. Rows of proj are read while staging only.
  static constexpr int kXTiles = kBackward ? 1 : kCarry ? 2 : 4, kProjTiles = kBackward ? 1 : 2;
  static constexpr int kPlaces = kBackward ? 2 : 4;  // backwards dproj is written after the next load
  static constexpr int kXRow = M::kChannels + 16 / sizeof(X);  // 16-byte rows, four banks apart
  static constexpr int kDyRow = M::kChannels + 4;   // of float
  static constexpr int kColumns = M::WC / 8;        // 8-channel blocks of a warp
  static constexpr float kNoStep = -1e30f;          // softplus makes 0 of it

  // Rank padded to the matrix instructions' 8; words of a staged row of proj, four banks apart.
  static __host__ __device__ int padded_rank(int R) { return (R + 7) / 8 * 8; }
  static __host__ __device__ int proj_words(const Params& p) {
    const int words = (p.R + 2 * M::N > padded_rank(p.R) ? p.R + 2 * M::N : padded_rank(p.R)) / 2;
    return (words + 3) / 8 * 8 + 4;
  }
  static __host__ __device__ int shared_bytes(const Params& p) {
    const int tiles = kTile * (kXTiles * kXRow * sizeof(X) + kPlaces * 4 + kProjTiles * proj_words(p) * 4);
    return tiles + (kBackward ? kTile * kDyRow * 4 : 0);
  }

  ParameterSums<M> parameter_sums;

  const Params& p;
  const Block& w;
  const Lane<M>& t;
  // Arrays of known size come first in shared memory, so that their places are constants.
  X* x_tiles;         // (kXTiles, kTile, kXRow)
  int* places;        // (kPlaces, kTile): where the steps of a tile lie in the image
  float* dy;          // (kTile, kDyRow), backward only
  uint32_t* p_tiles;  // (kProjTiles, kTile, words): rows of proj
  __device__ int rank() const { return padded_rank(p.R); }
  __device__ int words() const { return proj_words(p); }

  __device__ ImageLoader(const Params& p, const Block& w, const Lane<M>& t, char* own)
      : p(p), w(w), t(t) {
    x_tiles = reinterpret_cast<X*>(own);
    places = reinterpret_cast<int*>(x_tiles + kXTiles * kTile * kXRow);
    dy = reinterpret_cast<float*>(places + kPlaces * kTile);
    p_tiles = reinterpret_cast<uint32_t*>(dy + (kBackward ? kTile * kDyRow : 0));
  }

  __device__ X* x_of(int tile) const { return x_tiles + (tile - w.first_tile) % kXTiles * kTile * kXRow; }
  __device__ int* places_of(int tile) const { return places + (tile - w.first_tile) % kPlaces * kTile; }
  __device__ uint32_t* proj_of(int tile) const {
    return p_tiles + (tile - w.first_tile) % kProjTiles * kTile * words();
  }

  // Lane 4i+j stages rows i + 8 * _, channels 8 * column + 2j + {0, 1} of its warp.
  static __device__ int lane_channel(const Lane<M>& t, int column) {
    return t.warp * M::WC + 8 * column + 2 * (t.lane % 4);
  }

  __device__ void begin() { load(w.tile<kReverse>(0)); }

  // Finds where the tile's steps lie: for this lane its own, for all in shared memory.
  __device__ int place(int tile) const {
    const int at = w.lane_position(p, tile);
    if (t.warp == 0) places_of(tile)[t.lane] = at;
    return at;
  }

  // This lane's pair of an 8x8 block of dt_weight, as load_blocks() would give it untransposed: the rows
  // are the block's channels from `channel` on, the columns ranks from r on. Few enough to stay in the
  // first cache; in shared memory they would take another block's place.
  __device__ uint32_t weight_block(const Lane<M>& t, int channel, int r) const {
    const int c = w.channel + channel + t.lane / 4, column = r + 2 * (t.lane % 4);
    if (c >= w.channel_end || column >= p.R) return 0;
    const int pair = ((w.k * p.D + c) * p.R + column) / 2;  // R is even, and at most 64
    return static_cast<const uint32_t*>(p.dt_weight)[pair];
  }

  // Two values of a (K, D) parameter, for this lane's channels of a column; zeros past the end.
  __device__ float2 parameter(const float* values, const Lane<M>& t, int column) const {
    const int c = w.channel + lane_channel(t, column);
    return c < w.channel_end ? *reinterpret_cast<const float2*>(values + w.k * p.D + c)
                             : make_float2(0.0f, 0.0f);
  }

  // Rows of kRowBytes, 16 bytes a lane.
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
      // A channel past the end is not read: its address only has to be formed.
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
    // Rows of proj, by pieces or by words. Lanes that share a row lie side by side: from copy to copy
    // only the row's address changes.
    constexpr int kWords = kPieces ? 4 : 1, kLanes = kPieces ? 8 : 32;
    constexpr int kRows = M::kThreads / kLanes;  // at a time
    const int width = p.R + 2 * M::N, words = this->words();
    const T* rows = static_cast<const T*>(p.proj) + (image * p.K + w.k) * width;
    uint32_t* to = proj_of(tile);
    const uint32_t row_bytes = p.K * width * 2u, row_words = width / 2;
    const uint32_t first = kPieces ? t.lane % kLanes * kWords : t.lane;
    for (uint32_t word = first; word - first < row_words; word += kLanes * kWords) {
      const char* from = reinterpret_cast<const char*>(rows + 2 * word);
#pragma unroll
      for (int i = 0; i < kTile / kRows; ++i) {
        const int row = i * kRows + (kPieces ? t.thread() / kLanes : t.warp);
        const uint32_t pos = __shfl_sync(~0u, at, row);
        if (word < row_words) {
          copy_async<4 * kWords>(to + row * words + word, from + static_cast<uint64_t>(pos) * row_bytes,
                                 row < count);
        }
      }
    }
  }

  __device__ void wait() { wait_for_copies(); }

  __device__ const float* dy_row(int step) const { return dy + step * kDyRow + t.warp * M::WC; }

  // What prepare() takes from global memory, asked for before the wait for the tile.
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
    // All loads of a kind before the stores, which the compiler would not let them pass; and no branch
    // around a step that does not exist: each costs the latency of what it skips.
    constexpr int kPairs = (kTile * M::N + M::kThreads - 1) / M::kThreads;
    T2 bc[kPairs];  // pairs: N / 2 of a step's Bs, then N / 2 of its Cs
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int pair = i * M::kThreads + t.thread(), step = pair / M::N % kTile, n = pair % M::N;
      bc[i] = reinterpret_cast<const T2*>(p_tile + step * words + p.R / 2)[n];
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
      uint32_t a[2][2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        load_blocks<false>(a[half],
                           reinterpret_cast<const T*>(p_tile + (16 * half + t.lane % 16) * words) + r);
        if (r + 2 * (t.lane % 4) >= p.R) a[half][0] = a[half][1] = 0;  // Bs lies behind the rank
      }
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const uint32_t b[1] = {weight_block(t, t.warp * M::WC + 8 * j, r)};
        multiply_add<T>(dt[0][j], a[0], b);
        multiply_add<T>(dt[1][j], a[1], b);
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

  // A warp's ddelta, (kTile, 2 * kRow) of T: in the place of the steps' dt, for the products with it.
  static __device__ T* ddelta_of(const Stage<M, kBackward>& stage, int warp) {
    return reinterpret_cast<T*>(stage.bc + stage.kBcFloats + warp * kTile * stage.kRow);
  }

  // dx and ddelta, and what the latter adds to the gradients of Ds, bias and dt_weight: all of this warp
  // alone.
  __device__ void write_gradients(int tile, const GradientTile<M>& tile_sums,
                                  const Stage<M, kBackward>& stage) {
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    const int count = w.steps(tile);
    float* dx = static_cast<float*>(p.dx) + static_cast<int64_t>(w.b) * w.length * p.D + w.channel;
    T* ddeltas = ddelta_of(stage, t.warp);
    const int first = lane_channel(t, 0), own = first - t.warp * M::WC;
    bool channel_valid[kColumns];
    float2 D[kColumns];
    // By column dDs, then dbias: float16 would lose the small ddelta of which dbias is the sum.
    float sums_of_parameters[4 * kColumns] = {};
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      channel_valid[j] = w.channel + first + 8 * j < w.channel_end;
      D[j] = parameter(p.Ds, t, j);
    }
    constexpr int kRows = 2;  // at a time: more would spill registers
#pragma unroll 1
    for (int part = 0; part < kTile / 8; part += kRows) {
      // Without branches, that the rows' latencies overlap. Past the end x and dout are 0, but the
      // sums of steps that were not walked are anything.
      int pos[kRows];
      float4 v[kRows][kColumns], sum[kRows][kColumns];
      float2 x[kRows][kColumns], g[kRows][kColumns];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int step = 8 * (part + i) + t.lane / 4;
        pos[i] = places_of(tile)[step];
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          v[i][j] = *reinterpret_cast<const float4*>(stage.steps + step * stage.kRow + 2 * (own + 8 * j));
          x[i][j] = to_float2(*reinterpret_cast<const T2*>(x_of(tile) + step * kXRow + first + 8 * j));
          g[i][j] = *reinterpret_cast<const float2*>(dy + step * kDyRow + first + 8 * j);
          sum[i][j] = *reinterpret_cast<const float4*>(tile_sums.channels(step) + 2 * (own + 8 * j));
        }
      }
      __syncwarp();  // every lane has read its dt of these rows, whose place ddelta takes
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int step = 8 * (part + i) + t.lane / 4;
        float* dx_row = dx + static_cast<int64_t>(pos[i]) * p.D + first;
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          const bool valid = step < count && channel_valid[j];
          const float4 dt = v[i][j], s = sum[i][j];
          float2 ddelta;
          ddelta.x = fmaf(x[i][j].x, s.y, kLn2 * s.x) * softplus_grad(dt.x);
          ddelta.y = fmaf(x[i][j].y, s.w, kLn2 * s.z) * softplus_grad(dt.z);
          if (!valid) ddelta = make_float2(0.0f, 0.0f);
          if (valid) {
            add_to(dx_row + 8 * j,
                   make_float2(fmaf(D[j].x, g[i][j].x, dt.x * s.y), fmaf(D[j].y, g[i][j].y, dt.z * s.w)));
          }
          sums_of_parameters[4 * j] = fmaf(g[i][j].x, x[i][j].x, sums_of_parameters[4 * j]);
          sums_of_parameters[4 * j + 1] = fmaf(g[i][j].y, x[i][j].y, sums_of_parameters[4 * j + 1]);
          sums_of_parameters[4 * j + 2] += ddelta.x;
          sums_of_parameters[4 * j + 3] += ddelta.y;
          from_float2(ddelta, *reinterpret_cast<T2*>(ddeltas + step * 2 * stage.kRow + own + 8 * j));
        }
      }
    }
    parameter_sums.add(sums_of_parameters, t.lane);
    __syncwarp();
    add_weight_gradients(tile, t, ddeltas, 2 * stage.kRow);
  }

  // ddelta^T @ the rank's part of proj.
  __device__ void add_weight_gradients(int tile, const Lane<M>& t, const T* ddelta, int row) {
    const int rank = this->rank(), words = this->words();
    float* dweight = p.ddt_weight + (w.sum_row(p) * p.K + w.k) * p.D * p.R;
    const uint32_t* p_tile = proj_of(tile);
#pragma unroll 1
    for (int r = 0; r < rank; r += 8) {
      uint32_t b[kTile / 8][1];
#pragma unroll
      for (int s = 0; s < kTile / 8; ++s) {
        load_blocks<true>(b[s],
                          reinterpret_cast<const T*>(p_tile + (8 * s + t.lane % 8) * words) + r);
        if (r + t.lane / 4 >= p.R) b[s][0] = 0;  // Bs lies behind the rank
      }
#pragma unroll
      for (int c = 0; c < M::WC; c += 16) {
        float sum[4] = {};
#pragma unroll
        for (int s = 0; s < kTile / 8; ++s) {
          uint32_t a[2];
          const T* from = ddelta + (8 * s + t.lane % 8) * row + c;
          if constexpr (M::WC >= 16) {
            load_blocks<true>(a, from + t.lane / 8 % 2 * 8);
          } else {
            uint32_t first[1];
            load_blocks<true>(first, from);
            a[0] = first[0];
            a[1] = 0;
          }
          multiply_add<T>(sum, a, b[s]);
        }
        // Sums of a block's own would take the shared memory of another block.
        const int channel = w.channel + t.warp * M::WC + c + t.lane / 4, column = r + 2 * (t.lane % 4);
#pragma unroll
        for (int v = 0; v < 4; ++v) sum[v] *= kSumScale;
        if (column < p.R) {
          float* to = dweight + static_cast<int64_t>(channel) * p.R + column;
          if (channel < w.channel_end) add_to(to, make_float2(sum[0], sum[1]));
          if (M::WC >= 16 && channel + 8 < w.channel_end) add_to(to + 8 * p.R, make_float2(sum[2], sum[3]));
        }
      }
    }
  }

  // After a barrier: dproj, by a product with ddelta and by sums over the warps. `sums` is the first
  // warp's tile.
  __device__ void write_block_gradients(int tile, const GradientTile<M>& sums,
                                        const Stage<M, kBackward>& stage) {
    const Lane<M> t = kBackward ? this->t.recompute() : this->t;
    const int count = w.steps(tile);
    const int rank = this->rank();
    const int width = p.R + 2 * M::N;
    float* dproj = p.dproj + (static_cast<int64_t>(w.b) * w.length * p.K + w.k) * width;
    const uint32_t row = p.K * width;
    // One multiplication: positions and rows are 32 bits wide, their product is not.
    const auto row_of = [&](int pos) { return dproj + static_cast<uint64_t>(static_cast<uint32_t>(pos)) * row; };

    for (int i = t.warp; i < rank / 4; i += M::kWarps) {  // ddelta @ weight, 16 x 8 at a time
      const int half = i % 2, r = i / 2 * 8;
      float sum[4] = {};
#pragma unroll
      for (int c = 0; c < M::kChannels; c += 8) {
        uint32_t a[2];
        const uint32_t b[1] = {transposed(weight_block(t, c, r))};
        load_blocks<false>(a, ddelta_of(stage, c / M::WC) + (16 * half + t.lane % 16) * 2 * stage.kRow + c % M::WC);
        multiply_add<T>(sum, a, b);
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int step = 16 * half + 8 * e + t.lane / 4;
        const int pos = places_of(tile)[step];
        const int column = r + 2 * (t.lane % 4);
        if (step < count && column < p.R) {
          add_to(row_of(pos) + column, make_float2(sum[2 * e], sum[2 * e + 1]));
        }
      }
    }

    // As many at a time as keep their latencies overlapped.
    using StateSums = StateSumsFor<M, k16Bit>;
    constexpr int kMaps = 2 * M::N, kVector = kMaps < 4 ? kMaps : 4;  // of Bs and Cs; side by side
    constexpr int kItems = ceil_div(kTile * kMaps / kVector, M::kThreads), kAtOnce = kItems < 2 ? kItems : 2;
#pragma unroll
    for (int first = 0; first < kItems; first += kAtOnce) {
      float part[kAtOnce][M::kWarps][kVector];
      int pos[kAtOnce];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const int i = ((first + u) * M::kThreads + t.thread()) * kVector, step = i / kMaps % kTile;
        pos[u] = places_of(tile)[step];
#pragma unroll
        for (int v = 0; v < M::kWarps; ++v) {
          load_vector(sums.state_sums(step) + v * GradientTile<M>::kFloats + i % kMaps, part[u][v]);
        }
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const int i = ((first + u) * M::kThreads + t.thread()) * kVector, step = i / kMaps, n = i % kMaps;
        const float scale = n < M::N ? StateSums::kScaleB : StateSums::kScaleC;
        float sum[kVector];
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
          sum[j] = part[u][0][j];
#pragma unroll
          for (int v = 1; v < M::kWarps; ++v) sum[j] += part[u][v][j];
          sum[j] *= scale;
        }
        if (step >= count) continue;
        float* to = row_of(pos[u]) + p.R + n;
#pragma unroll
        for (int j = 0; j < kVector; j += 2) add_to(to + j, make_float2(sum[j], sum[j + 1]));
      }
    }
  }

  __device__ void finish() { parameter_sums.write(p, w, t); }
};

}  // namespace swin_umamba
