#include "../one_state_family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(OneState<Float16, 0>)
SWIN_UMAMBA_INSTANTIATE(OneState<Float16, 1>)
SWIN_UMAMBA_INSTANTIATE(OneState<Float16, 2>)
}
