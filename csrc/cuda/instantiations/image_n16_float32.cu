#include "../family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(Image<16, Float32>)
}
