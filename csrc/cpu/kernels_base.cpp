// The kernels for whatever every machine of this architecture has (SSE2, NEON).
#define SWIN_UMAMBA_ISA base
#define SWIN_UMAMBA_VECTOR_BYTES 16
#include "instantiate.h"

namespace swin_umamba::cpu {
extern constexpr Kernels<float> k_base_f32 = base::kernels<float>();
extern constexpr Kernels<double> k_base_f64 = base::kernels<double>();
}  // namespace swin_umamba::cpu
