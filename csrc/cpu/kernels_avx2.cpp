// The kernels for AVX2 with FMA.
#define SWIN_UMAMBA_ISA avx2
#define SWIN_UMAMBA_VECTOR_BYTES 32
#include "instantiate.h"

namespace swin_umamba::cpu {
extern constexpr Kernels<float> k_avx2_f32 = avx2::kernels<float>();
extern constexpr Kernels<double> k_avx2_f64 = avx2::kernels<double>();
}  // namespace swin_umamba::cpu
