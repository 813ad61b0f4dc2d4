// Vectors of one instruction set: the lanes of a register, and what the compiler's vector
// extensions lack. Included only by kernels.h, inside a namespace of the instruction set's own, so
// that no inline function compiled for a newer machine can be linked into code for an older one.

template <class T>
constexpr int kLanes = SWIN_UMAMBA_VECTOR_BYTES / int(sizeof(T));

template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(SWIN_UMAMBA_VECTOR_BYTES)));
  typedef int32_t bits __attribute__((vector_size(SWIN_UMAMBA_VECTOR_BYTES)));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(SWIN_UMAMBA_VECTOR_BYTES)));
  typedef int64_t bits __attribute__((vector_size(SWIN_UMAMBA_VECTOR_BYTES)));
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
using Bits = typename VecOf<T>::bits;

#define SWIN_UMAMBA_INLINE inline __attribute__((always_inline))

template <class T>
SWIN_UMAMBA_INLINE Vec<T> load(const T* from) {
  Vec<T> v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <class T>
SWIN_UMAMBA_INLINE void store(T* to, Vec<T> v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

// The first `count` lanes; zero in the others.
template <class T>
SWIN_UMAMBA_INLINE Vec<T> load_part(const T* from, int64_t count) {
  if (count == kLanes<T>) return load(from);
  Vec<T> v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = from[i];
  return v;
}

template <class T>
SWIN_UMAMBA_INLINE void store_part(T* to, Vec<T> v, int64_t count) {
  if (count == kLanes<T>) return store(to, v);
  for (int64_t i = 0; i < count; ++i) to[i] = v[i];
}

// count lanes, `stride` elements apart; zero in the others.
template <class T>
SWIN_UMAMBA_INLINE Vec<T> gather(const T* from, int64_t stride, int64_t count) {
  Vec<T> v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = from[i * stride];
  return v;
}

template <class T>
SWIN_UMAMBA_INLINE void scatter(T* to, int64_t stride, Vec<T> v, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i * stride] = v[i];
}

// ---- several vectors at once

// Every second lane of a then b, from `first` on.
template <class V, int... i>
SWIN_UMAMBA_INLINE V every_second(V a, V b, int first, std::integer_sequence<int, i...>) {
  return first ? __builtin_shufflevector(a, b, 2 * i + 1 ...)
               : __builtin_shufflevector(a, b, 2 * i...);
}

// The sums over lanes of `count` vectors, kLanes when called: lane j is the sum over v[j].
template <class T, int count = kLanes<T>>
SWIN_UMAMBA_INLINE Vec<T> sum_lanes(const Vec<T>* v) {
  if constexpr (count == 1) {
    return *v;
  } else {
    // Neighbouring lanes are added; each level holds the partial sums of twice as many vectors.
    constexpr std::make_integer_sequence<int, kLanes<T>> all{};
    const Vec<T> a = sum_lanes<T, count / 2>(v), b = sum_lanes<T, count / 2>(v + count / 2);
    return every_second(a, b, 0, all) + every_second(a, b, 1, all);
  }
}

template <class V, int lanes, int... i>
SWIN_UMAMBA_INLINE V interleave(V a, V b, bool upper, std::integer_sequence<int, i...>) {
  constexpr int half = lanes / 2;
  return upper ? __builtin_shufflevector(a, b, (half + i / 2 + i % 2 * lanes)...)
               : __builtin_shufflevector(a, b, (i / 2 + i % 2 * lanes)...);
}

// In place: lane i of v[j] becomes lane j of v[i].
template <class T>
SWIN_UMAMBA_INLINE void transpose_square(Vec<T>* v) {
  constexpr int lanes = kLanes<T>;
  constexpr std::make_integer_sequence<int, lanes> all{};
  for (int span = 1; span < lanes; span *= 2) {
    Vec<T> w[lanes];
    for (int i = 0; i < lanes / 2; ++i) {
      w[2 * i] = interleave<Vec<T>, lanes>(v[i], v[i + lanes / 2], false, all);
      w[2 * i + 1] = interleave<Vec<T>, lanes>(v[i], v[i + lanes / 2], true, all);
    }
    for (int i = 0; i < lanes; ++i) v[i] = w[i];
  }
}

// to[c * to_stride + r] = from[r * from_stride + c] for r < rows, c < columns.
template <class T>
static void transpose(
    const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows, int64_t columns) {
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t r = 0; r < rows; r += lanes) {
    for (int64_t c = 0; c < columns; c += lanes) {
      const int64_t row_count = rows - r < lanes ? rows - r : lanes;
      const int64_t column_count = columns - c < lanes ? columns - c : lanes;
      Vec<T> square[lanes] = {};
      for (int64_t i = 0; i < row_count; ++i) {
        square[i] = load_part(from + (r + i) * from_stride + c, column_count);
      }
      transpose_square<T>(square);
      for (int64_t i = 0; i < column_count; ++i) {
        store_part(to + (c + i) * to_stride + r, square[i], row_count);
      }
    }
  }
}
