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

// f(start, lanes) on `count` numbers, which need not fill the last vector.
template <class T, class F>
SWIN_UMAMBA_INLINE void for_each_vector(int64_t count, F f) {
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    f(i, count - i < kLanes<T> ? count - i : int64_t(kLanes<T>));
  }
}

// kLanes float32 numbers from the bits of 16-bit ones, without subnormal numbers as intermediates,
// which the kernels' threads flush to zero.
SWIN_UMAMBA_INLINE Vec<float> widen_bfloat16(Bits<float> bits) { return (Vec<float>)(bits << 16); }

SWIN_UMAMBA_INLINE Vec<float> widen_float16(Bits<float> bits) {
  constexpr int32_t exponent = 0x1f << 23;  // of float16, moved to where float32 has its own
  const Bits<float> moved = (bits & 0x7fff) << 13, field = moved & exponent;
  const Bits<float> normal = moved + ((127 - 15) << 23);
  const Bits<float> special = normal + ((128 - 16) << 23);  // infinities and NaN
  const Vec<float> min_normal = 0x1p-14f + Vec<float>{};
  const Bits<float> small = (Bits<float>)((Vec<float>)(normal + (1 << 23)) - min_normal);
  const Bits<float> is_special = field == exponent, is_small = field == 0;
  const Bits<float> magnitude = (special & is_special) | (small & is_small) |
                                (normal & ~is_special & ~is_small);
  return (Vec<float>)(magnitude | (bits & 0x8000) << 16);
}

// Where from[index] lies, for load_stored and transpose.
template <class T>
SWIN_UMAMBA_INLINE const T* stored_at(const T* from, int64_t index, int64_t storage) {
  return storage == kSame ? from + index : (const T*)((const uint16_t*)from + index);
}

// The lanes from[index] ..., where `from` holds numbers as `storage` says; zero in absent ones.
template <class T>
SWIN_UMAMBA_INLINE Vec<T> load_stored(
    const T* from, int64_t index, int64_t count, int64_t storage) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (storage != kSame) {
      typedef uint16_t Words __attribute__((vector_size(SWIN_UMAMBA_VECTOR_BYTES / 2)));
      Words words = {};
      const uint16_t* start = (const uint16_t*)from + index;
      if (count == kLanes<T>) {
        __builtin_memcpy(&words, start, sizeof(words));
      } else {
        for (int64_t i = 0; i < count; ++i) words[i] = start[i];
      }
      const Bits<T> bits = __builtin_convertvector(words, Bits<T>);
      return storage == kBFloat16 ? widen_bfloat16(bits) : widen_float16(bits);
    }
  }
  return load_part(from + index, count);
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

// Lanes i... of a then b. GCC has Clang's name for it from 12 on.
template <int... i, class V>
SWIN_UMAMBA_INLINE V shuffled(V a, V b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, i...);
#else
  using T = std::remove_reference_t<decltype(a[0])>;
  return __builtin_shuffle(a, b, Bits<T>{i...});
#endif
}

// Every second lane of a then b, from `first` on.
template <class V, int... i>
SWIN_UMAMBA_INLINE V every_second(V a, V b, int first, std::integer_sequence<int, i...>) {
  return first ? shuffled<2 * i + 1 ...>(a, b) : shuffled<2 * i...>(a, b);
}

// The sums over lanes of `count` vectors, kLanes when called: lane j is the sum over v[j].
template <class T, int count = kLanes<T>>
SWIN_UMAMBA_INLINE Vec<T> sum_lanes(const Vec<T>* v) {
  if constexpr (count == 1) {
    return *v;
  } else {
    // Neighboring lanes are added; each level holds the partial sums of twice as many vectors.
    constexpr std::make_integer_sequence<int, kLanes<T>> all{};
    const Vec<T> a = sum_lanes<T, count / 2>(v), b = sum_lanes<T, count / 2>(v + count / 2);
    return every_second(a, b, 0, all) + every_second(a, b, 1, all);
  }
}

template <class V, int lanes, int... i>
SWIN_UMAMBA_INLINE V interleave(V a, V b, bool upper, std::integer_sequence<int, i...>) {
  constexpr int half = lanes / 2;
  return upper ? shuffled<(half + i / 2 + i % 2 * lanes)...>(a, b)
               : shuffled<(i / 2 + i % 2 * lanes)...>(a, b);
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

// to[c * to_stride + r] = from[r * from_stride + c] for r < rows, c < columns; from as in
// load_stored.
template <class T>
static void transpose(
    const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows, int64_t columns,
    int64_t storage = kSame) {
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t r = 0; r < rows; r += lanes) {
    for (int64_t c = 0; c < columns; c += lanes) {
      const int64_t row_count = rows - r < lanes ? rows - r : lanes;
      const int64_t column_count = columns - c < lanes ? columns - c : lanes;
      Vec<T> square[lanes] = {};
      for (int64_t i = 0; i < row_count; ++i) {
        square[i] = load_stored(from, (r + i) * from_stride + c, column_count, storage);
      }
      transpose_square<T>(square);
      for (int64_t i = 0; i < column_count; ++i) {
        store_part(to + (c + i) * to_stride + r, square[i], row_count);
      }
    }
  }
}
