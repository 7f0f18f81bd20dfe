// The few names of TensorRT's C++ API that examples/plan_in_cpp.cpp uses, with the signatures of NVIDIA's NvInfer.h and
// NvInferRuntime.h (10.x), around a network that runs on the CPU: probability = sigmoid(2 x) of the third plane, as
// write_pointwise's in tests/support/models.py. The environment says what plan it stands for: STANDIN_SIDE,
// STANDIN_MOST (views at once), STANDIN_HALF ("1" where it reads float16). What TensorRT refuses is refused here too.

#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define NV_TENSORRT_MAJOR 10

namespace nvinfer1 {
enum class DataType : int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2 };
enum class TensorIOMode : int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class OptProfileSelector : int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };
using AsciiChar = char;

class Dims64 {
public:
    static constexpr int32_t MAX_DIMS{8};
    int32_t nbDims;
    int64_t d[MAX_DIMS];
};
using Dims = Dims64;
class Dims4 : public Dims {
public:
    Dims4(int64_t d0, int64_t d1, int64_t d2, int64_t d3) : Dims{4, {d0, d1, d2, d3}} {}
};

class ILogger {
public:
    enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual void log(Severity severity, AsciiChar const* msg) noexcept = 0;
    ILogger() = default;
    virtual ~ILogger() = default;
};

inline int standin_number(char const* name) { return std::atoi(std::getenv(name)); }

class IExecutionContext {
public:
    virtual ~IExecutionContext() noexcept = default;
    bool setInputShape(char const* name, Dims const& dims) noexcept {
        int side = standin_number("STANDIN_SIDE");
        views = int(dims.d[0]);
        if (std::strcmp(name, "image") || views < 1 || views > standin_number("STANDIN_MOST")) return false;
        return dims.nbDims == 4 && dims.d[1] == 3 && dims.d[2] == side && dims.d[3] == side;
    }
    bool setTensorAddress(char const* name, void* data) noexcept {
        (std::strcmp(name, "image") ? road : image) = data;
        return data != nullptr;
    }
    bool enqueueV3(cudaStream_t stream) noexcept {
        if (!image || !road || !views || !stream) return false;
        size_t area = size_t(standin_number("STANDIN_SIDE")) * standin_number("STANDIN_SIDE");
        bool half = standin_number("STANDIN_HALF");
        for (int i = 0; i < views; i++)
            for (size_t at = 0; at < area; at++) {
                size_t from = i * 3 * area + 2 * area + at;
                float x = half ? float(static_cast<__half*>(image)[from]) : static_cast<float*>(image)[from];
                static_cast<float*>(road)[i * area + at] = 1 / (1 + std::exp(-2 * x));
            }
        return true;
    }

private:
    void *image = nullptr, *road = nullptr;
    int views = 0;
};

class ICudaEngine {
public:
    virtual ~ICudaEngine() noexcept = default;
    IExecutionContext* createExecutionContext() noexcept { return new IExecutionContext; }
    int32_t getNbIOTensors() const noexcept { return 2; }
    // The order is not promised, so the output comes first here.
    char const* getIOTensorName(int32_t index) const noexcept { return index ? "image" : "road"; }
    TensorIOMode getTensorIOMode(char const* name) const noexcept {
        return std::strcmp(name, "image") ? TensorIOMode::kOUTPUT : TensorIOMode::kINPUT;
    }
    DataType getTensorDataType(char const* name) const noexcept {
        return !std::strcmp(name, "image") && standin_number("STANDIN_HALF") ? DataType::kHALF : DataType::kFLOAT;
    }
    Dims getProfileShape(char const*, int32_t, OptProfileSelector select) const noexcept {
        int side = standin_number("STANDIN_SIDE");
        return Dims4(select == OptProfileSelector::kMAX ? standin_number("STANDIN_MOST") : 1, 3, side, side);
    }
};

class IRuntime {
public:
    explicit IRuntime(ILogger& logger) : logger(logger) {}
    virtual ~IRuntime() noexcept = default;
    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept {
        if (size > 4 && !std::memcmp(blob, "ftrt", 4)) return new ICudaEngine;
        logger.log(ILogger::Severity::kERROR, "not a plan");
        return nullptr;
    }

private:
    ILogger& logger;
};

inline IRuntime* createInferRuntime(ILogger& logger) noexcept { return new IRuntime(logger); }
}  // namespace nvinfer1
