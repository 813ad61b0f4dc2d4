#include "../one_state_family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(OneState<Float32, 0>)
SWIN_UMAMBA_INSTANTIATE(OneState<Float32, 1>)
SWIN_UMAMBA_INSTANTIATE(OneState<Float32, 2>)
SWIN_UMAMBA_INSTANTIATE(OneState<Float32, 3>)
}
