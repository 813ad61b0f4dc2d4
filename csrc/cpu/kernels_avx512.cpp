// The kernels for AVX-512 with DQ, VL and BW.
#define SWIN_UMAMBA_ISA avx512
#define SWIN_UMAMBA_VECTOR_BYTES 64
#include "instantiate.h"

namespace swin_umamba::cpu {
extern constexpr Kernels<float> k_avx512_f32 = avx512::kernels<float>();
extern constexpr Kernels<double> k_avx512_f64 = avx512::kernels<double>();
}  // namespace swin_umamba::cpu
