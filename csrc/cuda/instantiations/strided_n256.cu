#include "../family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(Strided<256>)
}
