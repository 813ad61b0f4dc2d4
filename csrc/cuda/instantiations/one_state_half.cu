#include "../one_state_family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(OneState<Half, 0>)
SWIN_UMAMBA_INSTANTIATE(OneState<Half, 1>)
SWIN_UMAMBA_INSTANTIATE(OneState<Half, 2>)
}
