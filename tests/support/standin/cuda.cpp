// The calls of CUDA's runtime that examples/plan_in_cpp.cpp makes, on memory of the host; NVIDIA's header has them.

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

extern "C" {
cudaError_t cudaMalloc(void** at, size_t size) {
    return (*at = std::malloc(size)) ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void* at) { return std::free(at), cudaSuccess; }
cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t size, cudaMemcpyKind, cudaStream_t) {
    return std::memcpy(to, from, size), cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
    static int made;
    return *stream = reinterpret_cast<cudaStream_t>(&made), cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
char const* cudaGetErrorString(cudaError_t) { return "out of memory"; }
}
