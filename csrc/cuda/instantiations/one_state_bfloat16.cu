#include "../one_state_family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(OneState<BFloat16, 0>)
SWIN_UMAMBA_INSTANTIATE(OneState<BFloat16, 1>)
SWIN_UMAMBA_INSTANTIATE(OneState<BFloat16, 2>)
}
