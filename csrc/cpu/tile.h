// The scan itself, on one chunk of steps of one register's width of channels, forward and backward.
// Shared by the four-direction and the one-dimensional op, which differ in how a tile is filled and
// where its results go.
//
//   h_t = a_t h_{t-1} + dt_t x_t Bs_t,  y_t = sum_n Cs_t h_t,  a_t = exp(dt_t A) = 2^(dt_t A2)
//
// with channels in the lanes, states in groups that fit the registers, and A2 = A log2(e).

template <class T>
struct Tile {
  Vec<T> x[kChunk], dt[kChunk], dtx[kChunk], y[kChunk];
  const T* maps[kChunk];  // Bs of a step in the first N elements, Cs in the next N
};

// States processed at a time: with their A and the constants of exp2 they fit in the registers.
template <class T>
constexpr int kStates = SWIN_UMAMBA_VECTOR_BYTES == 64 ? 8 : 4;

// Group: how many states from n on. y is written by the first group and added to by the others.
template <class T, int group>
SWIN_UMAMBA_INLINE void forward_group(
    Tile<T>& tile, int64_t count, int64_t n, int64_t N, const Vec<T>* A2_all, Vec<T>* h_all) {
  Vec<T> h[group], A2[group];
  for (int j = 0; j < group; ++j) h[j] = h_all[n + j], A2[j] = A2_all[n + j];
  for (int64_t t = 0; t < count; ++t) {
    const Vec<T> dt = tile.dt[t], dtx = tile.dtx[t];
    const T *Bs = tile.maps[t] + n, *Cs = Bs + N;
    Vec<T> y = n ? tile.y[t] : Vec<T>{};
#pragma GCC unroll 8
    for (int j = 0; j < group; ++j) {
      h[j] = exp2<T>(dt * A2[j]) * h[j] + dtx * Bs[j];
      y = h[j] * Cs[j] + y;
    }
    tile.y[t] = y;
  }
  for (int j = 0; j < group; ++j) h_all[n + j] = h[j];
}

// Runs `count` steps. h (N vectors): the states before them on entry, after them on return. y goes
// into the tile.
template <class T>
void forward_tile(Tile<T>& tile, int64_t count, int64_t N, const Vec<T>* A2, Vec<T>* h) {
  int64_t n = 0;
  for (; n + kStates<T> <= N; n += kStates<T>) {
    forward_group<T, kStates<T>>(tile, count, n, N, A2, h);
  }
  if constexpr (kStates<T> > 4) {
    for (; n + 4 <= N; n += 4) forward_group<T, 4>(tile, count, n, N, A2, h);
  }
  for (; n + 2 <= N; n += 2) forward_group<T, 2>(tile, count, n, N, A2, h);
  for (; n < N; ++n) forward_group<T, 1>(tile, count, n, N, A2, h);
}

template <class T>
struct GradientTile : Tile<T> {
  Vec<T> dy[kChunk];
  Vec<T> derivative[kChunk];  // of dt by the argument of softplus
  // Sums over states, for the gradients of dt * x and of dt through a (in units of log2(e)).
  Vec<T> ddtx[kChunk], ddt[kChunk];
  // For one group of states: a and h of every step. The backward walk replaces them, once used,
  // by the products whose sums over channels are dBs and dCs.
  Vec<T> a[kChunk * kStates<T>], h[(kChunk + 1) * kStates<T>];
};

// g: the gradient of the states, N vectors, after the last step on entry and before the first one
// on return. dA2: its N vectors are added to. dmaps: (kChunk, row) sums over the lanes for dBs and,
// N elements on, dCs.
template <class T, int group>
SWIN_UMAMBA_INLINE void backward_group(
    GradientTile<T>& tile, int64_t count, int64_t n, int64_t N, const Vec<T>* A2_all,
    const Vec<T>* entering, Vec<T>* g_all, Vec<T>* dA2_all, T* dmaps, int64_t row) {
  Vec<T> h[group], A2[group];
  for (int j = 0; j < group; ++j) tile.h[j] = h[j] = entering[n + j], A2[j] = A2_all[n + j];
  for (int64_t t = 0; t < count; ++t) {
    const Vec<T> dt = tile.dt[t], dtx = tile.dtx[t];
    const T* Bs = tile.maps[t] + n;
    Vec<T>*a = tile.a + t * group, *h_kept = tile.h + (t + 1) * group;
#pragma GCC unroll 8
    for (int j = 0; j < group; ++j) {
      a[j] = exp2<T>(dt * A2[j]);
      h_kept[j] = h[j] = a[j] * h[j] + dtx * Bs[j];
    }
  }

  Vec<T> g[group], dA2[group];
  for (int j = 0; j < group; ++j) g[j] = g_all[n + j], dA2[j] = Vec<T>{};
  for (int64_t t = count - 1; t >= 0; --t) {
    const Vec<T> dt = tile.dt[t], dtx = tile.dtx[t], dy = tile.dy[t];
    const T *Bs = tile.maps[t] + n, *Cs = Bs + N;
    Vec<T>*a = tile.a + t * group, *h_kept = tile.h + (t + 1) * group;
    const Vec<T>* h_before = tile.h + t * group;
    Vec<T> ddtx = n ? tile.ddtx[t] : Vec<T>{}, ddt = n ? tile.ddt[t] : Vec<T>{};
#pragma GCC unroll 8
    for (int j = 0; j < group; ++j) {
      g[j] = dy * Cs[j] + g[j];
      h_kept[j] = dy * h_kept[j];
      ddtx = g[j] * Bs[j] + ddtx;
      const Vec<T> dB = g[j] * dtx;
      g[j] = g[j] * a[j];
      a[j] = dB;
      const Vec<T> q = g[j] * h_before[j];
      ddt = A2[j] * q + ddt;
      dA2[j] = dt * q + dA2[j];
    }
    tile.ddtx[t] = ddtx;
    tile.ddt[t] = ddt;
  }
  for (int j = 0; j < group; ++j) g_all[n + j] = g[j], dA2_all[n + j] += dA2[j];

  // kChunk * group vectors are a whole number of calls; rows beyond `count` hold stale values.
  constexpr int lanes = kLanes<T>;
  alignas(64) T sums[2][kChunk * group];
  for (int64_t i = 0; i < count * group; i += lanes) {
    store(sums[0] + i, sum_lanes<T>(tile.a + i));
    store(sums[1] + i, sum_lanes<T>(tile.h + group + i));
  }
  for (int64_t t = 0; t < count; ++t) {
#pragma GCC unroll 8
    for (int j = 0; j < group; ++j) {
      dmaps[t * row + n + j] = sums[0][t * group + j];
      dmaps[t * row + N + n + j] = sums[1][t * group + j];
    }
  }
}

template <class T>
void backward_tile(
    GradientTile<T>& tile, int64_t count, int64_t N, const Vec<T>* A2, const Vec<T>* entering,
    Vec<T>* g, Vec<T>* dA2, T* dmaps, int64_t row) {
  int64_t n = 0;
  for (; n + kStates<T> <= N; n += kStates<T>) {
    backward_group<T, kStates<T>>(tile, count, n, N, A2, entering, g, dA2, dmaps, row);
  }
  if constexpr (kStates<T> > 4) {
    for (; n + 4 <= N; n += 4) {
      backward_group<T, 4>(tile, count, n, N, A2, entering, g, dA2, dmaps, row);
    }
  }
  for (; n + 2 <= N; n += 2) {
    backward_group<T, 2>(tile, count, n, N, A2, entering, g, dA2, dmaps, row);
  }
  for (; n < N; ++n) backward_group<T, 1>(tile, count, n, N, A2, entering, g, dA2, dmaps, row);
}
