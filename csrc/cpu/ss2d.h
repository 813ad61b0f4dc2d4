// The four-direction scan of an image on one block of channels (one register's width): each
// direction visits the positions in its own order and adds to the same output, one after another.

// The positions of steps first .. first + count of direction k.
inline void visit(
    int64_t k, int64_t H, int64_t W, int64_t first, int64_t count, int64_t* positions) {
  const int64_t L = H * W;
  const bool backwards = k >= 2, columns = k % 2;
  const int64_t sign = backwards ? -1 : 1;
  int64_t m = backwards ? L - 1 - first : first;  // the corresponding step of the forward order
  if (!columns) {
    for (int64_t t = 0; t < count; ++t) positions[t] = m + sign * t;
    return;
  }
  int64_t column = m / H, row = m % H;
  for (int64_t t = 0; t < count; ++t) {
    positions[t] = row * W + column;
    row += sign;
    if (row == H) row = 0, ++column;
    if (row < 0) row = H - 1, --column;
  }
}

// One direction's parameters for a block of channels, channels in the lanes.
template <class T>
struct Direction {
  Vec<T> *weight, *A2;  // R, N vectors
  Vec<T> bias;

  template <class Params>
  void read(const Params& s, int64_t k, int64_t d, int64_t lanes) {
    const int64_t row = k * s.D + d;
    for (int64_t r = 0; r < s.R; ++r) weight[r] = gather(s.dt_weight + row * s.R + r, s.R, lanes);
    for (int64_t n = 0; n < s.N; ++n) {
      A2[n] = exp<T>(gather(s.A_logs + row * s.N + n, s.N, lanes)) * -Math<T>::kLog2e;
    }
    bias = load_part(s.dt_bias + row, lanes);
  }
};

// Copy the projection's rows of direction k at `positions` to rows (count, row), widened to T. Down
// a column they lie so far apart, and often at such distances, that caches would not hold them all.
template <class T, class Params>
void read_rows(
    const Params& s, int64_t b, int64_t k, const int64_t* positions, int64_t count, T* rows) {
  for (int64_t t = 0; t < count; ++t) {
    const int64_t from = ((b * s.L() + positions[t]) * kDirections + k) * s.row();
    for_each_vector<T>(s.row(), [&](int64_t i, int64_t lanes) {
      store_part(rows + t * s.row() + i, load_stored(s.proj, from + i, lanes, s.storage), lanes);
    });
  }
}

// Fill a tile with the steps at `positions`, whose projections are in `rows`: image b, channels d
// and on.
template <class T, bool gradients, class Params, class AnyTile>
SWIN_UMAMBA_INLINE void fill(
    const Params& s, const Direction<T>& direction, int64_t b, int64_t d, int64_t lanes,
    const int64_t* positions, const T* rows, int64_t count, AnyTile& tile) {
  for (int64_t t = 0; t < count; ++t) {
    const int64_t p = b * s.L() + positions[t];
    const T* row = rows + t * s.row();
    Vec<T> raw = direction.bias;
    for (int64_t r = 0; r < s.R; ++r) raw = direction.weight[r] * row[r] + raw;
    const Softplus<T> dt = softplus<T>(raw);
    const Vec<T> x = load_stored(s.x, p * s.D + d, lanes, s.storage);
    tile.maps[t] = row + s.R;
    tile.x[t] = x;
    tile.dt[t] = dt.value;
    tile.dtx[t] = dt.value * x;
    if constexpr (gradients) {
      tile.derivative[t] = dt.derivative;
      tile.dy[t] = load_part(s.dy + p * s.D + d, lanes);
    }
  }
}

template <class T, class Params>
Vec<T> sum_of_Ds(const Params& s, int64_t d, int64_t lanes) {
  Vec<T> sum = {};
  for (int64_t k = 0; k < kDirections; ++k) sum += load_part(s.Ds + k * s.D + d, lanes);
  return sum;
}

// `blocks` blocks of channels from `block` on, which take turns on every chunk: what they read of
// the projection, and the lines of x and y, are then still in cache. The directions first_k ..
// last_k - 1: the first of them writes y, the others add to it.
template <class T>
void ss2d_forward(
    const SS2DForward<T>& s, int64_t b, int64_t block, int64_t blocks, int64_t first_k,
    int64_t last_k, Arena arena) {
  constexpr int64_t width = kLanes<T>;
  const int64_t L = s.L(), N = s.N;
  auto& tile = *arena.take<Tile<T>>(1);
  Direction<T> directions[kForwardBlocks];
  Vec<T>* states[kForwardBlocks];
  for (int64_t i = 0; i < blocks; ++i) {
    directions[i].weight = arena.take<Vec<T>>(s.R);
    directions[i].A2 = arena.take<Vec<T>>(N);
    states[i] = arena.take<Vec<T>>(N);
  }
  int64_t positions[kChunk];
  T* rows = arena.take<T>(kChunk * s.row());

  for (int64_t k = first_k; k < last_k; ++k) {
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t d = (block + i) * width;
      directions[i].read(s, k, d, s.D - d < width ? s.D - d : width);
      for (int64_t n = 0; n < N; ++n) states[i][n] = Vec<T>{};
    }
    for (int64_t c = 0; c < s.C(); ++c) {
      const int64_t first = c * kChunk, count = L - first < kChunk ? L - first : kChunk;
      visit(k, s.H, s.W, first, count, positions);
      read_rows(s, b, k, positions, count, rows);
      for (int64_t i = 0; i < blocks; ++i) {
        const int64_t d = (block + i) * width, lanes = s.D - d < width ? s.D - d : width;
        Vec<T>* h = states[i];
        fill<T, false>(s, directions[i], b, d, lanes, positions, rows, count, tile);
        if (s.states) {
          T* to = s.states + (((b * kDirections + k) * s.C() + c) * s.D + d) * N;
          transpose((const T*)h, width, to, N, N, lanes);
        }
        forward_tile<T>(tile, count, N, directions[i].A2, h);
        const Vec<T> Ds = k ? Vec<T>{} : sum_of_Ds<T>(s, d, lanes);
        for (int64_t t = 0; t < count; ++t) {
          T* y = s.y + (b * L + positions[t]) * s.D + d;
          Vec<T> sum = tile.y[t];
          if (k == 0) sum = Ds * tile.x[t] + sum;
          if (k > first_k) sum = load_part(y, lanes) + sum;
          store_part(y, sum, lanes);
        }
      }
    }
  }
}

// The state of a block's backward pass for one direction, apart from the tile.
template <class T>
struct DirectionGradients {
  Vec<T> *A2, *weight;  // N, R vectors; sums over steps
  Vec<T> bias, Ds;
  T* weight_rows;  // (lanes, R rounded up to whole vectors): dt_weight, for the gradient of dt_r

  static int64_t padded(int64_t R) { return (R + kLanes<T> - 1) / kLanes<T> * kLanes<T>; }

  void start(const SS2DBackward<T>& s, int64_t k, int64_t d, int64_t lanes) {
    for (int64_t n = 0; n < s.N; ++n) A2[n] = Vec<T>{};
    for (int64_t r = 0; r < s.R; ++r) weight[r] = Vec<T>{};
    bias = Ds = Vec<T>{};
    for (int64_t i = 0; i < lanes; ++i) {
      for (int64_t r = 0; r < padded(s.R); ++r) {
        const T* row = s.dt_weight + (k * s.D + d + i) * s.R;
        weight_rows[i * padded(s.R) + r] = r < s.R ? row[r] : T(0);
      }
    }
  }

  // Add to this image's row. With A = -exp(A_log), d/dA_log = A d/dA, and d/dA2 carries ln 2.
  void finish(
      const SS2DBackward<T>& s, const Direction<T>& direction, int64_t b, int64_t k, int64_t d,
      int64_t lanes) const {
    const int64_t row = (b * kDirections + k) * s.D + d;
    for (int64_t n = 0; n < s.N; ++n) {
      const Vec<T> dA_log = A2[n] * direction.A2[n] * Math<T>::kLn2;
      for (int64_t i = 0; i < lanes; ++i) s.dA_logs[(row + i) * s.N + n] += dA_log[i];
    }
    for (int64_t r = 0; r < s.R; ++r) {
      for (int64_t i = 0; i < lanes; ++i) s.ddt_weight[(row + i) * s.R + r] += weight[r][i];
    }
    for (int64_t i = 0; i < lanes; ++i) s.ddt_bias[row + i] += bias[i];
    for (int64_t k_all = 0; k_all < kDirections && k == 0; ++k_all) {
      for (int64_t i = 0; i < lanes; ++i) s.dDs[(b * kDirections + k_all) * s.D + d + i] += Ds[i];
    }
  }
};

// From the gradient of dt to those of dt's factors, for one tile; dmaps (count, row). ddtx
// becomes this direction's part of the gradient of x.
template <class T>
SWIN_UMAMBA_INLINE void dt_gradients(
    const SS2DBackward<T>& s, GradientTile<T>& tile, int64_t count, int64_t lanes,
    DirectionGradients<T>& gradients, T* dmaps) {
  Vec<T> bias = {};
  for (int64_t t = 0; t < count; ++t) {
    const Vec<T> ddt = tile.ddt[t] * Math<T>::kLn2 + tile.ddtx[t] * tile.x[t];
    tile.ddt[t] = ddt * tile.derivative[t];
    bias += tile.ddt[t];
    // A separate loop, so that no compiler can fuse the product with that sum: the rounding must
    // not depend on how many directions a task takes.
    tile.ddtx[t] = tile.dt[t] * tile.ddtx[t];
  }
  gradients.bias += bias;
  for (int64_t r = 0; r < s.R; ++r) {
    Vec<T> sum = {};
    for (int64_t t = 0; t < count; ++t) sum = tile.ddt[t] * tile.maps[t][r - s.R] + sum;
    gradients.weight[r] += sum;
  }
  // Here R lies in the lanes: a product with the rows of dt_weight, no sums over lanes.
  const int64_t padded = gradients.padded(s.R);
  for (int64_t t = 0; t < count; ++t) {
    const T* ddt = (const T*)(tile.ddt + t);
    for (int64_t r = 0; r < s.R; r += kLanes<T>) {
      Vec<T> sum = {};
      for (int64_t i = 0; i < lanes; ++i) {
        sum = load(gradients.weight_rows + i * padded + r) * ddt[i] + sum;
      }
      store_part(dmaps + t * s.row() + r, sum, s.R - r < kLanes<T> ? s.R - r : kLanes<T>);
    }
  }
}

// Chunks last - 1 down to first of the directions first_k .. last_k - 1, added to dx. g (K, N)
// vectors: the gradient of the states that leave them, replaced by that of the states that enter.
// dmaps (K, (last - first) * kChunk, row): this block's part of dproj, in visiting order.
template <class T>
void ss2d_backward(
    const SS2DBackward<T>& s, int64_t b, int64_t block, int64_t first_k, int64_t last_k,
    int64_t first_chunk, int64_t last_chunk, T* g, T* dmaps, Arena arena) {
  const int64_t d = block * kLanes<T>, L = s.L(), N = s.N;
  const int64_t lanes = s.D - d < kLanes<T> ? s.D - d : kLanes<T>;
  auto& tile = *arena.take<GradientTile<T>>(1);
  Direction<T> direction{arena.take<Vec<T>>(s.R), arena.take<Vec<T>>(N), {}};
  DirectionGradients<T> gradients{arena.take<Vec<T>>(N), arena.take<Vec<T>>(s.R), {}, {}, nullptr};
  gradients.weight_rows = arena.take<T>(kLanes<T> * gradients.padded(s.R));
  Vec<T>* entering = arena.take<Vec<T>>(N);
  const Vec<T> Ds = sum_of_Ds<T>(s, d, lanes);
  int64_t positions[kChunk];
  T* rows = arena.take<T>(kChunk * s.row());
  for (int64_t n = 0; n < N; ++n) entering[n] = Vec<T>{};  // stays zero in absent lanes

  for (int64_t k = first_k; k < last_k; ++k) {
    direction.read(s, k, d, lanes);
    gradients.start(s, k, d, lanes);
    T* k_dmaps = dmaps + k * (last_chunk - first_chunk) * kChunk * s.row();
    for (int64_t c = last_chunk - 1; c >= first_chunk; --c) {
      const int64_t first = c * kChunk, count = L - first < kChunk ? L - first : kChunk;
      visit(k, s.H, s.W, first, count, positions);
      read_rows(s, b, k, positions, count, rows);
      fill<T, true>(s, direction, b, d, lanes, positions, rows, count, tile);
      const T* from = s.states + (((b * kDirections + k) * s.C() + c) * s.D + d) * N;
      transpose(from, N, (T*)entering, kLanes<T>, lanes, N);
      T* c_dmaps = k_dmaps + (c - first_chunk) * kChunk * s.row();
      backward_tile<T>(
          tile, count, N, direction.A2, entering, (Vec<T>*)g + k * N, gradients.A2, c_dmaps + s.R,
          s.row());
      dt_gradients<T>(s, tile, count, lanes, gradients, c_dmaps);
      for (int64_t t = 0; t < count; ++t) {
        T* dx = s.dx + (b * L + positions[t]) * s.D + d;
        Vec<T> part = tile.ddtx[t];
        if (k == 0) {
          part = Ds * tile.dy[t] + part;
          gradients.Ds = tile.x[t] * tile.dy[t] + gradients.Ds;
        }
        store_part(dx, load_part(dx, lanes) + part, lanes);
      }
    }
    gradients.finish(s, direction, b, k, d, lanes);
  }
}
