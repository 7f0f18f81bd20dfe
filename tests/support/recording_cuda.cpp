// NVIDIA's driver on memory of the host: it writes down each call with its arguments.
//
// What is put on a stream is done at once, and what is captured when its graph is launched. Kernels run where `kernel`
// has been told of them: as tests/support/host_kernels.py compiles them, with the arguments that the PTX declares. What cuda.h
// says of a function is done where pycuda or dlink depend on it: a stack of contexts for each thread, a count of who
// retains the primary one, and captures, during which the thread that captures may not allocate or free. All functions
// that pycuda is linked to and that are not here are added by tests/support/recording.py, and return CUDA_ERROR_STUB_LIBRARY.
//
// A line of the log is "code name thread argument=value ...".

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

enum Code {
    INVALID_VALUE = 1, OUT_OF_MEMORY = 2, STUB_LIBRARY = 34, INVALID_CONTEXT = 201, INVALID_PTX = 218,
    INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
    CAPTURE_IMPLICIT = 906, WRONG_THREAD = 908
};
enum { NON_BLOCKING = 1 };             // flag of a stream
enum { CONTEXT = 1, UNSAFE = 2 };      // what a call needs: a context, and that its thread captures nothing
typedef uintptr_t Handle;
typedef std::function<void()> Work;
typedef void (*Kernel)(const unsigned grid[3], void *const *arguments);

struct Stream {
    unsigned flags;
    bool captured, broken;
    int by;  // the thread that captures
    std::vector<Work> nodes;
};

struct Function {
    std::string name;
    std::vector<size_t> sizes;  // of its arguments, bytes
};

static std::mutex mutex;
static std::string lines, said;
static std::map<std::string, int> refused;           // name of a call -> the code of its next
static std::map<Handle, size_t> memory, pinned;      // address -> bytes
static std::map<Handle, std::string> texts;          // module -> PTX
static std::map<Handle, Function> functions;
static std::map<std::string, Kernel> kernels;
static std::map<Handle, Stream> streams;
static std::map<Handle, std::vector<Work>> graphs, executables;
static std::map<Handle, int> events;
static Handle last_handle = 0x1000;
static const Handle PRIMARY = 0xC0;
static int retained, threads;
static thread_local std::vector<Handle> stack;
static thread_local int thread = -1;

static int this_thread() { return thread >= 0 ? thread : thread = threads++; }

struct Call {
    std::unique_lock<std::mutex> lock{mutex};
    const char *name;
    int code = 0;
    std::vector<Work> todo;

    Call(const char *name, int needs = CONTEXT) : name(name) {
        const auto found = refused.find(name);
        if (found != refused.end()) {
            code = found->second;
            refused.erase(found);
        } else if ((needs & CONTEXT) && stack.empty()) {
            code = INVALID_CONTEXT;
        } else if (needs & UNSAFE) {
            for (auto &[_, stream] : streams)
                if (stream.captured && stream.by == this_thread()) {
                    stream.broken = true;
                    code = CAPTURE_UNSUPPORTED;
                }
        }
    }

    explicit operator bool() const { return !code; }

    void check(bool fine, int otherwise) {
        if (!code && !fine) code = otherwise;
    }

    // Put work on a stream: it is done when the call ends, unless the stream is captured or the call is refused.
    void put(Handle stream, Work work) {
        if (code) return;
        if (stream <= 1) {  // the legacy one, which waits for all streams that are not non-blocking
            for (auto &[_, other] : streams)
                if (other.captured && !(other.flags & NON_BLOCKING)) {
                    other.broken = true;
                    code = CAPTURE_IMPLICIT;
                }
        } else if (stream > 2) {  // 2 is the thread's own
            const auto found = streams.find(stream);
            check(found != streams.end(), INVALID_HANDLE);
            if (!code && found->second.captured) {
                check(!found->second.broken, CAPTURE_INVALIDATED);
                if (!code) found->second.nodes.push_back(work);
                return;
            }
        }
        if (!code) todo.push_back(work);
    }

    int end() { return end("%s", ""); }

    int end(const char *format, ...) __attribute__((format(printf, 2, 3))) {
        char text[4096];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        lines += std::to_string(code) + " " + name + " " + std::to_string(this_thread()) + " " + text + "\n";
        lock.unlock();  // work may be Python's, which waits for its own lock
        for (const auto &work : todo) work();
        return code;
    }
};

static Handle allocate(std::map<Handle, size_t> &where, size_t bytes) {
    const Handle address = (Handle)aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset((void *)address, 0x7F, bytes);
    where[address] = bytes;
    return address;
}

static bool release(std::map<Handle, size_t> &where, Handle address) {
    if (!where.erase(address)) return false;
    free((void *)address);
    return true;
}

static std::string hex(const std::string &data) {
    std::string text;
    char two[3];
    for (const unsigned char byte : data) {
        snprintf(two, sizeof two, "%02x", byte);
        text += two;
    }
    return text;
}

// What is not here.
int not_here(const char *name) {
    Call call(name, 0);
    call.check(false, STUB_LIBRARY);
    return call.end();
}

extern "C" {

// The log since this was last asked.
const char *recorded() {
    std::lock_guard<std::mutex> lock(mutex);
    said.swap(lines);
    lines.clear();
    return said.c_str();
}

void refuse(const char *name, int code) { refused[name] = code; }

int depth() { return (int)stack.size(); }

int references() { return retained; }

// Work of somebody else's on a stream.
int put(const char *name, Handle stream, void (*work)(void)) {
    Call call(name);
    call.put(stream, work);
    return call.end("stream=%zu", stream);
}

// Where a kernel is to be run.
void kernel(const char *name, Kernel where) { kernels[name] = where; }

// How many there are of memory, pinned memory, modules, streams, graphs, their executables and events.
void held(int counts[7]) {
    const size_t sizes[] = {memory.size(), pinned.size(), texts.size(), streams.size(),
                            graphs.size(), executables.size(), events.size()};
    for (int i = 0; i < 7; i++) counts[i] = (int)sizes[i];
}

int cuGetErrorString(int code, const char **text) {
    static const std::map<int, const char *> words = {
        {OUT_OF_MEMORY, "out of memory"}, {INVALID_CONTEXT, "invalid device context"},
        {INVALID_HANDLE, "invalid resource handle"},
        {CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"},
        {CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"}};
    const auto found = words.find(code);
    *text = found == words.end() ? "an error" : found->second;
    return 0;
}

int cuInit(unsigned flags) { return Call("cuInit", 0).end("flags=%u", flags); }

int cuDriverGetVersion(int *version) {
    *version = 13000;
    return Call("cuDriverGetVersion", 0).end();
}

int cuDeviceGetCount(int *count) {
    *count = 1;
    return Call("cuDeviceGetCount", 0).end();
}

int cuDeviceGet(int *device, int index) {
    *device = index;
    return Call("cuDeviceGet", 0).end("index=%d", index);
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = 0;
    return Call("cuDeviceGetAttribute", 0).end("attribute=%d device=%d", attribute, device);
}

// contexts

int cuDevicePrimaryCtxRetain(Handle *context, int device) {
    Call call("cuDevicePrimaryCtxRetain", 0);
    if (call) *context = PRIMARY, retained++;
    return call.end("device=%d", device);
}

int cuDevicePrimaryCtxRelease_v2(int device) {  // "does not pop the context from stack in any circumstances"
    Call call("cuDevicePrimaryCtxRelease_v2", 0);
    call.check(retained > 0, INVALID_CONTEXT);
    if (call) retained--;
    return call.end("device=%d", device);
}

int cuCtxPushCurrent_v2(Handle context) {
    Call call("cuCtxPushCurrent_v2", 0);
    if (call) stack.push_back(context);
    return call.end("context=%zu", context);
}

int cuCtxPopCurrent_v2(Handle *context) {
    Call call("cuCtxPopCurrent_v2");
    Handle top = 0;
    if (call) top = stack.back(), stack.pop_back();
    if (context) *context = top;
    return call.end("context=%zu", top);
}

int cuCtxGetCurrent(Handle *context) {
    Call call("cuCtxGetCurrent", 0);
    *context = stack.empty() ? 0 : stack.back();
    return call.end("context=%zu", *context);
}

int cuCtxDetach(Handle context) {  // for a context that was made or attached, not for a primary one
    Call call("cuCtxDetach");
    call.check(false, INVALID_CONTEXT);
    return call.end("context=%zu", context);
}

// memory

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    Call call("cuMemGetInfo_v2");
    *free = (size_t)1 << 33, *total = (size_t)1 << 34;
    return call.end();
}

int cuMemAlloc_v2(Handle *address, size_t bytes) {
    Call call("cuMemAlloc_v2", CONTEXT | UNSAFE);
    call.check(bytes > 0, INVALID_VALUE);
    *address = call ? allocate(memory, bytes) : 0;
    return call.end("bytes=%zu address=%zu", bytes, *address);
}

int cuMemFree_v2(Handle address) {
    Call call("cuMemFree_v2", CONTEXT | UNSAFE);
    if (call) call.check(release(memory, address), INVALID_VALUE);
    return call.end("address=%zu", address);
}

int cuMemHostAlloc(Handle *address, size_t bytes, unsigned flags) {
    Call call("cuMemHostAlloc", CONTEXT | UNSAFE);
    *address = call ? allocate(pinned, bytes) : 0;
    return call.end("bytes=%zu flags=%u address=%zu", bytes, flags, *address);
}

int cuMemFreeHost(Handle address) {
    Call call("cuMemFreeHost", CONTEXT | UNSAFE);
    if (call) call.check(release(pinned, address), INVALID_VALUE);
    return call.end("address=%zu", address);
}

int cuMemHostGetDevicePointer_v2(Handle *pointer, Handle address, unsigned flags) {
    Call call("cuMemHostGetDevicePointer_v2");
    *pointer = address;
    return call.end("address=%zu flags=%u", address, flags);
}

int cuMemcpyHtoDAsync_v2(Handle to, Handle from, size_t bytes, Handle stream) {
    Call call("cuMemcpyHtoDAsync_v2");
    call.put(stream, [=] { memcpy((void *)to, (const void *)from, bytes); });
    return call.end("to=%zu from=%zu bytes=%zu stream=%zu", to, from, bytes, stream);
}

int cuMemcpyDtoHAsync_v2(Handle to, Handle from, size_t bytes, Handle stream) {
    Call call("cuMemcpyDtoHAsync_v2");
    call.put(stream, [=] { memcpy((void *)to, (const void *)from, bytes); });
    return call.end("to=%zu from=%zu bytes=%zu stream=%zu", to, from, bytes, stream);
}

int cuMemcpyDtoDAsync_v2(Handle to, Handle from, size_t bytes, Handle stream) {
    Call call("cuMemcpyDtoDAsync_v2");
    call.put(stream, [=] { memcpy((void *)to, (const void *)from, bytes); });
    return call.end("to=%zu from=%zu bytes=%zu stream=%zu", to, from, bytes, stream);
}

int cuMemsetD32Async(Handle to, unsigned value, size_t count, Handle stream) {
    Call call("cuMemsetD32Async");
    call.put(stream, [=] {
        for (size_t i = 0; i < count; i++) ((unsigned *)to)[i] = value;
    });
    return call.end("to=%zu value=%u count=%zu stream=%zu", to, value, count, stream);
}

struct End {  // half of CUDA_MEMCPY2D
    size_t x, y;
    int type;  // CUmemorytype: 2 is the device's
    const void *host;
    Handle device;
    void *array;
    size_t pitch;
};

struct Rectangle {
    End from, to;
    size_t width, height;
};

int cuMemcpy2DAsync_v2(const Rectangle *r, Handle stream) {
    Call call("cuMemcpy2DAsync_v2");
    call.check(r->from.type == 2 && r->to.type == 2, INVALID_VALUE);
    call.check(r->width <= r->from.pitch && r->width <= r->to.pitch, INVALID_VALUE);
    call.put(stream, [r = *r] {
        for (size_t row = 0; row < r.height; row++)
            memcpy((void *)(r.to.device + row * r.to.pitch), (void *)(r.from.device + row * r.from.pitch), r.width);
    });
    return call.end("from=%zu from_pitch=%zu to=%zu to_pitch=%zu width=%zu height=%zu rest=%zu stream=%zu",
                    r->from.device, r->from.pitch, r->to.device, r->to.pitch, r->width, r->height,
                    r->from.x + r->from.y + r->to.x + r->to.y, stream);
}

// streams, events, graphs

int cuStreamCreate(Handle *stream, unsigned flags) {
    Call call("cuStreamCreate");
    if (call) streams[*stream = ++last_handle] = {flags, false, false, 0, {}};
    return call.end("flags=%u stream=%zu", flags, call ? *stream : 0);
}

int cuStreamDestroy_v2(Handle stream) {
    Call call("cuStreamDestroy_v2");
    if (call) call.check(streams.erase(stream), INVALID_HANDLE);
    return call.end("stream=%zu", stream);
}

int cuStreamSynchronize(Handle stream) {
    Call call("cuStreamSynchronize");
    const auto found = streams.find(stream);
    if (call && found != streams.end() && found->second.captured) {
        found->second.broken = true;
        call.check(false, CAPTURE_UNSUPPORTED);
    }
    return call.end("stream=%zu", stream);
}

int cuStreamWaitEvent(Handle stream, Handle event, unsigned flags) {
    Call call("cuStreamWaitEvent");
    call.check(events.count(event), INVALID_HANDLE);
    call.put(stream, [] {});
    return call.end("stream=%zu event=%zu flags=%u", stream, event, flags);
}

int cuStreamBeginCapture_v2(Handle stream, int mode) {
    Call call("cuStreamBeginCapture_v2");
    const auto found = streams.find(stream);
    call.check(found != streams.end(), stream <= 1 ? CAPTURE_UNSUPPORTED : INVALID_HANDLE);
    if (call) call.check(!found->second.captured, INVALID_VALUE);
    if (call) found->second = {found->second.flags, true, false, this_thread(), {}};
    return call.end("stream=%zu mode=%d", stream, mode);
}

int cuStreamEndCapture(Handle stream, Handle *graph) {
    Call call("cuStreamEndCapture");
    const auto found = streams.find(stream);
    *graph = 0;
    call.check(found != streams.end(), INVALID_HANDLE);
    if (call) call.check(found->second.captured, INVALID_VALUE);
    if (call) call.check(found->second.by == this_thread(), WRONG_THREAD);
    if (call) call.check(!found->second.broken, CAPTURE_INVALIDATED);
    if (call) graphs[*graph = ++last_handle] = found->second.nodes;
    if (found != streams.end()) found->second.captured = found->second.broken = false;
    return call.end("stream=%zu graph=%zu", stream, *graph);
}

int cuGraphInstantiateWithFlags(Handle *made, Handle graph, unsigned long long flags) {
    Call call("cuGraphInstantiateWithFlags");
    call.check(graphs.count(graph), INVALID_VALUE);
    const size_t nodes = call ? graphs[graph].size() : 0;
    if (call) executables[*made = ++last_handle] = graphs[graph];
    return call.end("graph=%zu flags=%llu made=%zu nodes=%zu", graph, flags, call ? *made : 0, nodes);
}

int cuGraphDestroy(Handle graph) {
    Call call("cuGraphDestroy");
    if (call) call.check(graphs.erase(graph), INVALID_VALUE);
    return call.end("graph=%zu", graph);
}

int cuGraphLaunch(Handle made, Handle stream) {
    Call call("cuGraphLaunch");
    call.check(executables.count(made), INVALID_VALUE);
    if (call)
        for (const auto &node : executables[made]) call.put(stream, node);
    return call.end("made=%zu stream=%zu", made, stream);
}

int cuGraphExecDestroy(Handle made) {
    Call call("cuGraphExecDestroy");
    if (call) call.check(executables.erase(made), INVALID_VALUE);
    return call.end("made=%zu", made);
}

int cuEventCreate(Handle *event, unsigned flags) {
    Call call("cuEventCreate");
    if (call) events[*event = ++last_handle] = 0;
    return call.end("flags=%u event=%zu", flags, call ? *event : 0);
}

int cuEventDestroy_v2(Handle event) {
    Call call("cuEventDestroy_v2");
    if (call) call.check(events.erase(event), INVALID_HANDLE);
    return call.end("event=%zu", event);
}

int cuEventRecord(Handle event, Handle stream) {
    Call call("cuEventRecord");
    call.check(events.count(event), INVALID_HANDLE);
    call.put(stream, [] {});
    return call.end("event=%zu stream=%zu", event, stream);
}

int cuEventSynchronize(Handle event) {
    Call call("cuEventSynchronize");
    call.check(events.count(event), INVALID_HANDLE);
    return call.end("event=%zu", event);
}

static int elapsed(float *ms, Handle from, Handle to) {
    Call call("cuEventElapsedTime");
    *ms = 2;
    return call.end("from=%zu to=%zu", from, to);
}

int cuEventElapsedTime(float *ms, Handle from, Handle to) { return elapsed(ms, from, to); }

int cuEventElapsedTime_v2(float *ms, Handle from, Handle to) { return elapsed(ms, from, to); }

// kernels

int cuModuleLoadDataEx(Handle *module, const char *image, unsigned count, const int *options, void **values) {
    Call call("cuModuleLoadDataEx");
    const size_t length = strlen(image);  // text ends at its first NUL, its length is nobody's to say
    call.check(strstr(image, "\n.version ") || !strncmp(image, ".version ", 9), INVALID_PTX);
    if (call) texts[*module = ++last_handle] = image;
    for (unsigned i = 0; i < count; i++)
        if (options[i] == 4 || options[i] == 6) values[i] = 0;  // lengths of what was logged
    return call.end("length=%zu module=%zu", length, call ? *module : 0);
}

int cuModuleUnload(Handle module) {
    Call call("cuModuleUnload");
    if (call) call.check(texts.erase(module), INVALID_HANDLE);
    return call.end("module=%zu", module);
}

// The sizes of a kernel's arguments, as PTX declares them.
static std::vector<size_t> sizes_of(const std::string &text, size_t entry) {
    std::vector<size_t> sizes;
    const std::string head = text.substr(entry, text.find(')', entry) - entry);
    for (size_t at = head.find(".param ."); at != std::string::npos; at = head.find(".param .", at + 1)) {
        const char *type = head.c_str() + at + strlen(".param .");
        const bool whole = !strncmp(type, "align 4 .b8 ", 12);  // a struct of floats: its size is in brackets
        sizes.push_back(whole ? (size_t)atoi(strchr(type, '[') + 1) : (size_t)atoi(type + 1) / 8);
    }
    return sizes;
}

int cuModuleGetFunction(Handle *function, Handle module, const char *name) {
    Call call("cuModuleGetFunction");
    call.check(texts.count(module), INVALID_HANDLE);
    const size_t entry = call ? texts[module].find(std::string(".entry ") + name + "(") : std::string::npos;
    if (call) call.check(entry != std::string::npos, NOT_FOUND);
    if (call) functions[*function = ++last_handle] = {name, sizes_of(texts[module], entry)};
    return call.end("module=%zu name=%s", module, name);
}

int cuFuncSetBlockShape(Handle function, int x, int y, int z) {
    return Call("cuFuncSetBlockShape").end("function=%zu x=%d y=%d z=%d", function, x, y, z);
}

// Each argument lies at the next multiple of its size, a struct of floats at that of a float.
static void run(const Function &function, std::vector<unsigned> grid, std::string buffer) {
    std::vector<void *> arguments;
    size_t at = 0;
    for (const size_t size : function.sizes) {
        const size_t step = size > sizeof(double) ? sizeof(float) : size;
        at = (at + step - 1) / step * step;
        arguments.push_back(&buffer[at]);
        at += size;
    }
    const auto found = kernels.find(function.name);
    if (found != kernels.end()) found->second(grid.data(), arguments.data());
}

int cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Handle stream, void **parameters, void **extra) {
    Call call("cuLaunchKernel");
    const char *buffer = "";
    size_t bytes = 0;
    for (; extra && *extra; extra += 2) {  // CU_LAUNCH_PARAM_END is 0
        if (extra[0] == (void *)1) buffer = (const char *)extra[1];
        if (extra[0] == (void *)2) bytes = *(const size_t *)extra[1];
    }
    call.check(functions.count(function) && bytes && !parameters, INVALID_VALUE);
    const Function called = call ? functions[function] : Function();
    const std::string arguments(buffer, bytes);
    call.put(stream, [=] { run(called, {gx, gy, gz}, arguments); });
    return call.end("name=%s grid=%u,%u,%u block=%u,%u,%u shared=%u stream=%zu arguments=%s", called.name.c_str(),
                    gx, gy, gz, bx, by, bz, shared, stream, hex(arguments).c_str());
}
}
