#include "../one_state_family.cuh"

namespace swin_umamba {
SWIN_UMAMBA_INSTANTIATE(OneState<Half, 3>)
SWIN_UMAMBA_INSTANTIATE(OneState<Half, 6>)
}
