// Draws the roads of one tile by a plan of dlink, in C++ with TensorRT's own API, without Python and dlink.
//
//     CUDA=/usr/local/cuda
//     g++ -std=c++17 -O2 plan_in_cpp.cpp -o plan_in_cpp -I$CUDA/include -L$CUDA/lib64 -lnvinfer -lcudart
//     ./plan_in_cpp roads.plan tile.ppm mask.pgm
//
// To try the plan, and its speed, without this program:
//
//     trtexec --loadEngine=roads.plan --shapes=image:8x3x1024x1024
//
// tile.ppm is binary PPM (P6) of the size that the plan was built for. A plan is only the network. What the caller must
// do is in roads.plan.json beside it, under "spec": the order of colours, scale and shift, the views, the threshold.
// Under "ends" are the types: the plan "reads" float32 or float16 (plans of FP16 files) and "gives" float32. The engine
// knows them too, and this program asks the engine. For TensorRT 8.5 and newer; README.md here says what was run.
//
// A plan is code: loading it runs it. dlink first checks its hash and its signature; this program does not.

#include <NvInfer.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using nvinfer1::DataType;

struct Logger : nvinfer1::ILogger {
    void log(Severity severity, char const* words) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << "TensorRT: " << words << "\n";
    }
};

// Every call's result is checked, because only the call that fails knows the reason.
void must(bool done, std::string const& fault) {
    if (!done) throw std::runtime_error(fault);
}
void must(cudaError_t answer, char const* what) {
    must(answer == cudaSuccess, std::string(what) + ": " + cudaGetErrorString(answer));
}

std::string read_file(std::string const& path) {
    std::ifstream file(path, std::ios::binary);
    must(file.good(), path + ": can't be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

// The spec in the manifest. This reader works for a file that dlink wrote, where "spec" comes first; use a JSON library.
struct Spec {
    int tile;
    bool bgr;
    std::vector<float> scale, shift;  // x = pixel * scale + shift, in the network's order of colours
    std::vector<float> views;
    float threshold;
};

std::vector<float> numbers(std::string const& json, std::string const& key) {
    size_t at = json.find("\"" + key + "\":");
    must(at != std::string::npos, "the manifest has no " + key);
    char const* text = json.c_str() + at + key.size() + 3;
    std::vector<float> found;
    for (char* end; *text && *text != ']' && *text != '"'; text = std::max<char const*>(end, text + 1)) {
        float value = std::strtof(text, &end);
        if (end != text) found.push_back(value);
    }
    must(!found.empty(), "the manifest has no number for " + key);
    return found;
}

Spec read_spec(std::string const& path) {
    std::string json = read_file(path);
    return {int(numbers(json, "tile")[0]), json.find("\"channels\": \"BGR\"") != std::string::npos,
            numbers(json, "scale"), numbers(json, "shift"), numbers(json, "views"), numbers(json, "threshold")[0]};
}

// Which pixel of the tile a view shows at (y, x). Bits: 1 a quarter turn counter-clockwise, then 2 top to bottom, then
// 4 left to right. The network's result at (y, x) of a view belongs to that pixel, so the same place undoes the view.
size_t seen(int view, int side, int y, int x) {
    if (view & 4) x = side - 1 - x;
    if (view & 2) y = side - 1 - y;
    return view & 1 ? size_t(x) * side + (side - 1 - y) : size_t(y) * side + x;
}

// Write the pixels' colours into three planes of a batch, prepared for the network.
template <typename T>
void prepare(std::vector<uint8_t> const& rgb, Spec const& spec, int view, T* planes) {
    size_t area = size_t(spec.tile) * spec.tile;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < spec.tile; y++)
            for (int x = 0; x < spec.tile; x++) {
                uint8_t pixel = rgb[seen(view, spec.tile, y, x) * 3 + (spec.bgr ? 2 - c : c)];
                planes[c * area + size_t(y) * spec.tile + x] = T(float(pixel) * spec.scale[c] + spec.shift[c]);
            }
}

std::vector<uint8_t> roads(std::string const& plan_path, std::vector<uint8_t> const& rgb, Spec const& spec) {
    Logger logger;
    std::string plan = read_file(plan_path);
    std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
    must(runtime != nullptr, "TensorRT does not start");
    std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
    must(engine != nullptr, plan_path + ": is for another GPU or TensorRT; build it here");
    std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());
    must(context != nullptr, "no memory for an execution context");

    // One input, the prepared views (N, 3, S, S), and one output, their probabilities (N, 1, S, S).
    must(engine->getNbIOTensors() == 2, "not a plan of dlink: it needs exactly one input and one output");
    char const *image = engine->getIOTensorName(0), *road = engine->getIOTensorName(1);
    if (engine->getTensorIOMode(image) != nvinfer1::TensorIOMode::kINPUT) std::swap(image, road);
    DataType type = engine->getTensorDataType(image);
    must(type == DataType::kFLOAT || type == DataType::kHALF, "the plan reads neither float32 nor float16");
    must(engine->getTensorDataType(road) == DataType::kFLOAT, "the plan does not give float32");

    int side = spec.tile, all = int(spec.views.size());
    int64_t fits = engine->getProfileShape(image, 0, nvinfer1::OptProfileSelector::kMAX).d[0];
    int most = int(std::min<int64_t>(fits, all));  // views at once
    size_t area = size_t(side) * side, bytes = type == DataType::kHALF ? 2 : 4;
    std::vector<char> batch(most * 3 * area * bytes);
    std::vector<float> answers(most * area), total(area);
    void *batch_at = nullptr, *answers_at = nullptr;
    cudaStream_t stream = nullptr;
    must(cudaStreamCreate(&stream), "cudaStreamCreate");
    must(cudaMalloc(&batch_at, batch.size()), "cudaMalloc");
    must(cudaMalloc(&answers_at, answers.size() * sizeof(float)), "cudaMalloc");
    must(context->setTensorAddress(image, batch_at), "TensorRT refuses the address of the image");
    must(context->setTensorAddress(road, answers_at), "TensorRT refuses the address of the roads");

    for (int first = 0; first < all; first += most) {
        int n = std::min(most, all - first);
        for (int i = 0; i < n; i++) {
            int view = int(spec.views[first + i]);
            char* planes = batch.data() + i * 3 * area * bytes;
            if (type == DataType::kHALF) prepare(rgb, spec, view, reinterpret_cast<__half*>(planes));
            else prepare(rgb, spec, view, reinterpret_cast<float*>(planes));
        }
        must(context->setInputShape(image, nvinfer1::Dims4{n, 3, side, side}), "the plan is for tiles of another size");
        size_t size = n * 3 * area * bytes;
        must(cudaMemcpyAsync(batch_at, batch.data(), size, cudaMemcpyHostToDevice, stream), "to the GPU");
        must(context->enqueueV3(stream), "TensorRT could not run the network");
        must(cudaMemcpyAsync(answers.data(), answers_at, n * area * 4, cudaMemcpyDeviceToHost, stream), "from the GPU");
        must(cudaStreamSynchronize(stream), "the GPU failed");
        for (int i = 0; i < n; i++)
            for (int y = 0; y < side; y++)
                for (int x = 0; x < side; x++)
                    total[seen(int(spec.views[first + i]), side, y, x)] += answers[i * area + size_t(y) * side + x];
    }
    cudaFree(batch_at);  // a program that continues after an error must free these there too
    cudaFree(answers_at);
    cudaStreamDestroy(stream);

    // The mean of the views, and road where it is greater than the threshold.
    std::vector<uint8_t> mask(area);
    for (size_t i = 0; i < area; i++) mask[i] = total[i] / float(all) > spec.threshold ? 255 : 0;
    return mask;
}

int main(int count, char** given) try {
    must(count == 4, std::string("usage: ") + given[0] + " PLAN TILE.ppm MASK.pgm");
    Spec spec = read_spec(std::string(given[1]) + ".json");
    std::ifstream tile(given[2], std::ios::binary);
    std::string kind;
    int width = 0, height = 0, largest = 0;
    tile >> kind >> width >> height >> largest;
    tile.get();
    must(kind == "P6" && largest == 255, std::string(given[2]) + ": not a binary PPM of 8 bits");
    std::string side = std::to_string(spec.tile);
    must(width == spec.tile && height == spec.tile, given[2] + (": must have " + side + " x " + side + " px"));
    std::vector<uint8_t> rgb(size_t(width) * height * 3);
    must(bool(tile.read(reinterpret_cast<char*>(rgb.data()), rgb.size())), std::string(given[2]) + ": cut short");
    std::vector<uint8_t> mask = roads(given[1], rgb, spec);
    std::ofstream out(given[3], std::ios::binary);
    out << "P5\n" << width << " " << height << "\n255\n";
    out.write(reinterpret_cast<char const*>(mask.data()), mask.size());
    must(bool(out.flush()), std::string(given[3]) + ": can't be written");
    return 0;
} catch (std::exception const& e) {
    std::cerr << "Error: " << e.what() << "\n";
    return 1;
}
