#include "../family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(Sequence<16, Float16>)
}
