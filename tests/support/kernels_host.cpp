// trt_runtime/kernels/kernels.cu on a CPU: its own text, compiled by g++. Each thread of a block is a fiber that runs until its
// next barrier; a barrier that not all threads of a block reach ends the process with a message.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ucontext.h>
#include <vector>

struct Index {
    unsigned x, y, z;
};
static Index blockIdx, threadIdx;

#define __device__ static
#define __global__
#define __shared__ static
#define __launch_bounds__(threads, blocks)
#define __popc __builtin_popcount

typedef _Float16 half;
static float number(float value) { return value; }
static float number(half value) { return (float)value; }
static void store(float value, float *at) { *at = value; }
static void store(float value, half *at) { *at = (half)value; }

static ucontext_t scheduler;

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(16384);
    unsigned x, y;
    int barriers;
    bool done;
};
static std::vector<Fiber> fibers;
static Fiber *running;

static void __syncthreads() {
    running->barriers++;
    swapcontext(&running->context, &scheduler);
}

#include KERNELS

struct Call {
    void (*kernel)(void **);
    void **arguments;
};
static Call call;

static void run_thread() {
    call.kernel(call.arguments);
    running->done = true;
    swapcontext(&running->context, &scheduler);
}

static void run_block() {
    for (unsigned i = 0; i < fibers.size(); i++) {
        Fiber &fiber = fibers[i];
        fiber.x = i % EDGE, fiber.y = i / EDGE, fiber.barriers = 0, fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        makecontext(&fiber.context, run_thread, 0);
    }
    for (bool more = true; more;) {
        more = false;
        for (Fiber &fiber : fibers) {
            if (fiber.done) continue;
            running = &fiber;
            threadIdx = {fiber.x, fiber.y, 0};
            swapcontext(&scheduler, &fiber.context);
            more |= !fiber.done;
        }
        for (Fiber &fiber : fibers)
            if (fiber.barriers != fibers[0].barriers) {
                fprintf(stderr, "a barrier that some threads of a block do not reach\n");
                abort();
            }
    }
}

static void launch(void (*kernel)(void **), const unsigned *grid, void **arguments) {
    fibers.resize(EDGE * ROWS);
    call = {kernel, arguments};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++) run_block();
}

// As cuLaunchKernel takes them: an address for each argument.
template <typename... A, size_t... I> static void apply(void (*kernel)(A...), void **a, std::index_sequence<I...>) {
    kernel(*(A *)a[I]...);
}
template <typename... A> static void unpack(void (*kernel)(A...), void **a) {
    apply(kernel, a, std::index_sequence_for<A...>{});
}

#define LAUNCH(NAME)                                                    \
    extern "C" void launch_##NAME(const unsigned *grid, void **a) {     \
        launch([](void **a) { unpack(NAME, a); }, grid, a);             \
    }

LAUNCH(spread_float32)
LAUNCH(spread_float16)
LAUNCH(spread_bands_float32)
LAUNCH(spread_bands_float16)
LAUNCH(gather_float32)
LAUNCH(gather_float16)
