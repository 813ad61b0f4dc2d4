// The number that a family's tag stands for.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "families.h"

namespace swin_umamba {

template <class Tag>
struct Value;
template <>
struct Value<Float32> { using type = float; };
template <>
struct Value<Float16> { using type = __half; };
template <>
struct Value<BFloat16> { using type = __nv_bfloat16; };

}  // namespace swin_umamba
