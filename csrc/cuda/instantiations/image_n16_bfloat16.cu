#include "../family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(Image<16, BFloat16>)
SWIN_UMAMBA_INSTANTIATE(Image<16, BFloat16, true>)
}
