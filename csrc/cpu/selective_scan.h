// The one-dimensional scan on one block of channels of a group. Sequences lie along memory, so
// tiles are transposed when they are loaded and stored.

template <class T>
struct ScanBlock {
  int64_t d, lanes;  // its first channel and how many there are

  ScanBlock(const ScanSizes& s, int64_t group, int64_t block) {
    const int64_t per_group = s.D / s.G, within = block * kLanes<T>;
    d = group * per_group + within;
    lanes = per_group - within < kLanes<T> ? per_group - within : kLanes<T>;
  }
};

// Prefetches the steps first .. first + kChunk of `rows` sequences, which are too far apart for the
// hardware prefetcher. Into the second-level cache: in the first they might evict each other.
template <class T>
void prefetch(const T* from, int64_t start, int64_t stride, int64_t rows, int64_t storage = kSame) {
  const int64_t size = storage == kSame ? sizeof(T) : sizeof(uint16_t), line = 64 / size;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t t = 0; t < kChunk; t += line) {
      __builtin_prefetch((const char*)from + (start + row * stride + t) * size, 0, 2);
    }
  }
}

// A tile of steps first .. first + count. maps (kChunk, 2N) holds their Bs and Cs, steps outermost.
template <class T, bool gradients, class Params, class AnyTile>
void fill_sequence(
    const Params& s, int64_t b, int64_t group, const ScanBlock<T>& block, int64_t first,
    int64_t count, int64_t next, T* maps, AnyTile& tile) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t start = (b * s.D + block.d) * s.L + first;
  const int64_t maps_start = (b * s.G + group) * s.N * s.L + first;
  if (next >= 0 && next < s.L) {
    const int64_t offset = next - first;
    prefetch(s.Bs, maps_start + offset, s.L, s.N, s.storage);
    prefetch(s.Cs, maps_start + offset, s.L, s.N, s.storage);
    prefetch(s.u, start + offset, s.L, block.lanes, s.storage);
    prefetch(s.delta, start + offset, s.L, block.lanes, s.storage);
    if constexpr (gradients) prefetch(s.dout, start + offset, s.L, block.lanes);
  }
  const T* Bs = stored_at(s.Bs, maps_start, s.storage);
  const T* Cs = stored_at(s.Cs, maps_start, s.storage);
  transpose(Bs, s.L, maps, s.row(), s.N, count, s.storage);
  transpose(Cs, s.L, maps + s.N, s.row(), s.N, count, s.storage);
  // The transposition leaves absent lanes as an earlier block left them.
  for (int64_t t = 0; t < count && block.lanes < lanes; ++t) tile.x[t] = tile.dt[t] = Vec<T>{};
  const T *u = stored_at(s.u, start, s.storage), *delta = stored_at(s.delta, start, s.storage);
  transpose(u, s.L, (T*)tile.x, lanes, block.lanes, count, s.storage);
  transpose(delta, s.L, (T*)tile.dt, lanes, block.lanes, count, s.storage);
  if constexpr (gradients) {
    for (int64_t t = 0; t < count && block.lanes < lanes; ++t) tile.dy[t] = Vec<T>{};
    transpose(s.dout + start, s.L, (T*)tile.dy, lanes, block.lanes, count);
  }
  const Vec<T> bias = s.bias ? load_part(s.bias + block.d, block.lanes) : Vec<T>{};
  for (int64_t t = 0; t < count; ++t) {
    tile.maps[t] = maps + t * s.row();
    Softplus<T> dt{tile.dt[t] + bias, T(1) + Vec<T>{}};
    if (s.softplus) dt = softplus<T>(dt.value);
    tile.dt[t] = dt.value;
    tile.dtx[t] = dt.value * tile.x[t];
    if constexpr (gradients) tile.derivative[t] = dt.derivative;
  }
}

template <class T>
void read_A2(const T* A, int64_t N, int64_t lanes, Vec<T>* A2) {
  for (int64_t n = 0; n < N; ++n) A2[n] = gather(A + n, N, lanes) * Math<T>::kLog2e;
}

template <class T>
void scan_forward(const ScanForward<T>& s, int64_t b, int64_t group, int64_t number, Arena arena) {
  const int64_t N = s.N;
  const ScanBlock<T> block(s, group, number);
  auto& tile = *arena.take<Tile<T>>(1);
  T* maps = arena.take<T>(kChunk * s.row());
  Vec<T>*A2 = arena.take<Vec<T>>(N), *h = arena.take<Vec<T>>(N);
  const Vec<T> Ds = s.Ds ? load_part(s.Ds + block.d, block.lanes) : Vec<T>{};
  read_A2(s.A + block.d * N, N, block.lanes, A2);
  for (int64_t n = 0; n < N; ++n) h[n] = Vec<T>{};

  for (int64_t c = 0; c < s.C(); ++c) {
    const int64_t first = c * kChunk, count = s.L - first < kChunk ? s.L - first : kChunk;
    fill_sequence<T, false>(s, b, group, block, first, count, first + kChunk, maps, tile);
    if (s.states) {
      T* to = s.states + ((b * s.C() + c) * s.D + block.d) * N;
      transpose((const T*)h, kLanes<T>, to, N, N, block.lanes);
    }
    forward_tile<T>(tile, count, N, A2, h);
    for (int64_t t = 0; t < count && s.Ds; ++t) tile.y[t] = Ds * tile.x[t] + tile.y[t];
    T* out = s.out + (b * s.D + block.d) * s.L + first;
    transpose((const T*)tile.y, kLanes<T>, out, s.L, count, block.lanes);
  }
  transpose((const T*)h, kLanes<T>, s.last + (b * s.D + block.d) * N, N, N, block.lanes);
}

// Chunks last_chunk - 1 down to first_chunk. g: N vectors, as in ss2d_backward. dmaps
// ((last - first) * kChunk, 2N): this block's part of dBs and dCs.
template <class T>
void scan_backward(
    const ScanBackward<T>& s, int64_t b, int64_t group, int64_t number, int64_t first_chunk,
    int64_t last_chunk, T* g_memory, T* dmaps, Arena arena) {
  const int64_t N = s.N;
  const ScanBlock<T> block(s, group, number);
  const int64_t row = b * s.D + block.d;
  auto& tile = *arena.take<GradientTile<T>>(1);
  T* maps = arena.take<T>(kChunk * s.row());
  Vec<T>*A2 = arena.take<Vec<T>>(N), *dA2 = arena.take<Vec<T>>(N);
  Vec<T>*entering = arena.take<Vec<T>>(N), *g = (Vec<T>*)g_memory;
  const Vec<T> Ds = s.Ds ? load_part(s.Ds + block.d, block.lanes) : Vec<T>{};
  Vec<T> dDs = {}, dbias = {};
  read_A2(s.A + block.d * N, N, block.lanes, A2);
  for (int64_t n = 0; n < N; ++n) dA2[n] = entering[n] = Vec<T>{};  // entering: stays zero in absent lanes
  if (last_chunk == s.C() && s.dlast) {
    for (int64_t n = 0; n < N; ++n) g[n] = gather(s.dlast + row * N + n, N, block.lanes);
  }

  for (int64_t c = last_chunk - 1; c >= first_chunk; --c) {
    const int64_t first = c * kChunk, count = s.L - first < kChunk ? s.L - first : kChunk;
    fill_sequence<T, true>(s, b, group, block, first, count, first - kChunk, maps, tile);
    const T* from = s.states + ((b * s.C() + c) * s.D + block.d) * N;
    transpose(from, N, (T*)entering, kLanes<T>, block.lanes, N);
    backward_tile<T>(
        tile, count, N, A2, entering, g, dA2, dmaps + (c - first_chunk) * kChunk * s.row(),
        s.row());
    Vec<T> chunk_dDs = {}, chunk_dbias = {};
    for (int64_t t = 0; t < count; ++t) {
      const Vec<T> x = tile.x[t], ddtx = tile.ddtx[t];
      const Vec<T> ddelta = (tile.ddt[t] * Math<T>::kLn2 + ddtx * x) * tile.derivative[t];
      tile.x[t] = tile.dt[t] * ddtx + Ds * tile.dy[t];
      tile.dt[t] = ddelta;
      chunk_dbias += ddelta;
      chunk_dDs += x * tile.dy[t];
    }
    dDs += chunk_dDs;
    dbias += chunk_dbias;
    transpose((const T*)tile.x, kLanes<T>, s.du + row * s.L + first, s.L, count, block.lanes);
    transpose((const T*)tile.dt, kLanes<T>, s.ddelta + row * s.L + first, s.L, count, block.lanes);
  }
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t i = 0; i < block.lanes; ++i) s.dA[(row + i) * N + n] += dA2[n][i];
  }
  for (int64_t i = 0; i < block.lanes; ++i) s.dDs[row + i] += dDs[i], s.dbias[row + i] += dbias[i];
}
