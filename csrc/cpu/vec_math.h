// exp, exp2 and softplus on vectors. Polynomials by the Remez algorithm: relative errors 2e-9
// (float) and 4e-18 (double), so that what is left is rounding, below 2 units in the last place.

template <class T>
struct Math;

template <>
struct Math<float> {
  static constexpr float kRound = 0x1.8p23f;  // adding it leaves a whole number in the low bits
  static constexpr int32_t kMantissa = 23, kBias = 127;
  static constexpr float kLog2e = 0x1.715476p+0f;
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;  // ln 2 = their sum
  static constexpr float kLn2 = 0x1.62e43p-1f;
  // (2^r - 1) / r for |r| <= 1/2
  static constexpr float kExp2[] = {0.6931472027806974f,    0.24022647914256162f,
                                    0.05550332573986608f,   0.009618437496967747f,
                                    0.0013398843774438671f, 0.00015353286857651532f};
  // log(1 + e) / e for 0 <= e <= 1
  static constexpr float kLog1p[] = {
      0.9999999953084755f,   -0.4999990266843269f,  0.3332996712571692f,  -0.24954167993214124f,
      0.19676060271288398f,  -0.15305814492926406f, 0.10603855038267349f, -0.05696006509308057f,
      0.019851093732682717f, -0.0032438194470437312f};
};

template <>
struct Math<double> {
  static constexpr double kRound = 0x1.8p52;
  static constexpr int64_t kMantissa = 52, kBias = 1023;
  static constexpr double kLog2e = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 0x1.ef35793c7673p-45;
  static constexpr double kLn2 = 0x1.62e42fefa39efp-1;
  static constexpr double kExp2[] = {
      0.6931471805599453,     0.2402265069591013,     0.05550410866482009,   0.009618129107594187,
      0.0013333558146773933,  0.00015403530457038862, 1.5252733493502194e-05,
      1.3215435315062282e-06, 1.0178199491132191e-07, 7.0737781145383575e-09,
      4.4347757031030836e-10};
  static constexpr double kLog1p[] = {
      1.0,                  -0.49999999999999856, 0.33333333333309223,  -0.24999999998423236,
      0.199999999451655,    -0.1666666549342991,  0.14285697426982433,  -0.12499827604543969,
      0.11109804492494738,  -0.09992438264866375, 0.09056733638810742,  -0.08210578574433151,
      0.07336874049646393,  -0.06303016948357591, 0.05028132810771069,  -0.035758792919306,
      0.021708684043384056, -0.010744350422817399, 0.004110051577952608, -0.0011299981507851868,
      0.00019751770377732898, -1.641940352021851e-05};
};

template <class T, int degree_plus_1>
SWIN_UMAMBA_INLINE Vec<T> polynomial(const T (&c)[degree_plus_1], Vec<T> x) {
  Vec<T> sum = c[degree_plus_1 - 1] + Vec<T>{};
#pragma GCC unroll 32
  for (int i = degree_plus_1 - 2; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

template <class T>
SWIN_UMAMBA_INLINE Vec<T> max(Vec<T> a, T b) {  // NaN in a stays
  return a < b ? b + Vec<T>{} : a;
}

template <class T>
SWIN_UMAMBA_INLINE Vec<T> min(Vec<T> a, T b) {
  return a > b ? b + Vec<T>{} : a;
}

// x = n + r with n whole and |r| <= 1/2. n is far inside the range of T's integers.
template <class T>
SWIN_UMAMBA_INLINE Vec<T> nearest(Vec<T> x) {
  // The compiler must not simplify the sum and difference (and does not, without -ffast-math).
  return (x + Math<T>::kRound) - Math<T>::kRound;
}

// p * 2^n for whole n, in two factors so that neither overflows before the product does.
template <class T>
SWIN_UMAMBA_INLINE Vec<T> scale(Vec<T> p, Vec<T> n) {
  using M = Math<T>;
  const Vec<T> shifted = n + M::kRound;
  const Vec<T> zero = M::kRound + Vec<T>{};
  const Bits<T> whole = (Bits<T>)shifted - (Bits<T>)zero;
  const Bits<T> first = whole >> 1, second = whole - first;
  const Vec<T> a = (Vec<T>)((first + M::kBias) << M::kMantissa);
  const Vec<T> b = (Vec<T>)((second + M::kBias) << M::kMantissa);
  return p * a * b;
}

// 2^x, from 0 below the smallest number to infinity.
template <class T>
SWIN_UMAMBA_INLINE Vec<T> exp2(Vec<T> x) {
  constexpr T limit = 2 * (Math<T>::kBias - 1);
  x = max(min(x, limit), -limit);
  const Vec<T> n = nearest<T>(x), r = x - n;
  return scale<T>(polynomial(Math<T>::kExp2, r) * r + T(1), n);
}

#if defined(__AVX512F__) && defined(__AVX512DQ__) && SWIN_UMAMBA_VECTOR_BYTES == 64
// One instruction each for the remainder and for the scaling, which takes care of all limits. (With
// a mask of ones: GCC 12 warns of its own headers' plain forms.)
template <>
SWIN_UMAMBA_INLINE Vec<float> exp2<float>(Vec<float> x) {
  const Vec<float> r = _mm512_maskz_reduce_ps(-1, x, 0);
  return _mm512_maskz_scalef_ps(-1, polynomial(Math<float>::kExp2, r) * r + 1.0f, x - r);
}
template <>
SWIN_UMAMBA_INLINE Vec<double> exp2<double>(Vec<double> x) {
  const Vec<double> r = _mm512_maskz_reduce_pd(-1, x, 0);
  return _mm512_maskz_scalef_pd(-1, polynomial(Math<double>::kExp2, r) * r + 1.0, x - r);
}
#endif

// e^x. The two parts of ln 2 keep the argument exact where 2^(x log2 e) would round it first.
template <class T>
SWIN_UMAMBA_INLINE Vec<T> exp(Vec<T> x) {
  using M = Math<T>;
  constexpr T limit = 2 * (M::kBias - 1) * M::kLn2;
  x = max(min(x, limit), -limit);
  const Vec<T> n = nearest<T>(x * M::kLog2e);
  const Vec<T> r = ((x - n * M::kLn2High) - n * M::kLn2Low) * M::kLog2e;
  return scale<T>(polynomial(M::kExp2, r) * r + T(1), n);
}

// softplus(x) = log(1 + e^x), and its derivative, the logistic function of x.
template <class T>
struct Softplus {
  Vec<T> value, derivative;
};

template <class T>
SWIN_UMAMBA_INLINE Softplus<T> softplus(Vec<T> x) {
  const Vec<T> e = exp<T>(x < T(0) ? x : -x);
  const Vec<T> value = max(x, T(0)) + polynomial(Math<T>::kLog1p, e) * e;
  return {value, (x < T(0) ? e : T(1) + Vec<T>{}) / (T(1) + e)};
}
