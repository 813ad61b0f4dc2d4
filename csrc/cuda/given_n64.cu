#include "family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(Given<64>)
}
