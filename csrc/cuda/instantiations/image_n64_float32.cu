#include "../family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(Image<64, Float32>)
}
