// float16 of the host under CUDA's name: NVIDIA's own cuda_fp16.h needs headers that no wheel of the test extra brings.

#pragma once
struct __half {
    __half(float value) : value(static_cast<_Float16>(value)) {}
    operator float() const { return value; }
    _Float16 value;
};
