#include "../one_state_family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(OneState<BFloat16, 3>)
SWIN_UMAMBA_INSTANTIATE(OneState<BFloat16, 6>)
}
