// The kernels around the network: spread turns tiles into views, gather turns the views' probabilities into roads.
//
// A view is a number as in views.py: 1 a quarter turn counter-clockwise, 2 top to bottom, 4 left to right. `views` is a
// set of views: bit v stands for view v. In a batch the views of a tile follow one another, in the order of their
// numbers. A block of EDGE x ROWS threads handles EDGE x EDGE pixels of one tile; the grid is (columns, rows, tiles).
// Turned views pass through shared memory, so that global memory is read and written along rows.
//
// The arithmetic is HostBackend's, in the same order and without fused multiply-adds, so the bits are the same.
// `python -m dlink.trt_runtime.kernels.build` builds kernels.ptx from this file.

#define EDGE 32
#define ROWS 8
#define TURN 1
#define FLIP_V 2
#define FLIP_H 4
#define COLOURS 3
#define MOST_BANDS 8
#define SLACK 2e-3f  // as in backend.py: how far rounding may lead outside [0, 1]

typedef unsigned char byte;

#ifdef __CUDACC__
struct half { unsigned short bits; };  // float16; NVRTC's wheel has no cuda_fp16.h

__device__ float number(float value) { return value; }

__device__ float number(half value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}

__device__ void store(float value, float *at) { *at = value; }

__device__ void store(float value, half *at) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(at->bits) : "f"(value)); }
#endif

// The offset of a pixel in a flipped plane; `row` and `column` are those before the flips of `view`.
__device__ size_t flipped(int row, int column, int side, int view) {
    return (size_t)(view & FLIP_V ? side - 1 - row : row) * side + (view & FLIP_H ? side - 1 - column : column);
}

// What prepares each plane, in the network's order.
template <int MOST>
struct Numbers {
    float scale[MOST], shift[MOST];
};

// uint8 (N, side, side, planes) -> (N * views, planes, side, side), x = pixel * scale + shift. For `bgr` the first three
// planes, red, green and blue, are reversed. There are at most MOST planes.
template <int MOST, typename In>
__device__ void spread(const byte *tiles, In *batch, int side, unsigned views, int planes, int bgr,
                       Numbers<MOST> with) {
    __shared__ byte seen[MOST][EDGE][EDGE + 4];  // 9 words a row: columns are free of bank conflicts
    const int left = blockIdx.x * EDGE, top = blockIdx.y * EDGE, tx = threadIdx.x;
    const size_t area = (size_t)side * side;
    const byte *tile = tiles + blockIdx.z * area * planes;
    In *plane = batch + blockIdx.z * __popc(views) * area * planes;

    for (int i = threadIdx.y; i < EDGE; i += ROWS)
        if (top + i < side && left + tx < side)
            for (int c = 0; c < planes; c++)
                seen[bgr && c < COLOURS ? COLOURS - 1 - c : c][i][tx] =
                    tile[((size_t)(top + i) * side + left + tx) * planes + c];
    __syncthreads();

#pragma unroll 1
    for (int view = 0; view < 8; view++) {
        if (!(views >> view & 1)) continue;
        const bool turn = view & TURN;
        for (int c = 0; c < planes; c++, plane += area)
            for (int i = threadIdx.y; i < EDGE; i += ROWS) {
                // Row r of the turned picture is column side - 1 - r of the picture.
                const int y = top + (turn ? tx : i), x = left + (turn ? i : tx);
                if (y >= side || x >= side) continue;
                const float value = (float)seen[c][y - top][x - left] * with.scale[c] + with.shift[c];
                store(value, plane + (turn ? flipped(side - 1 - x, y, side, view) : flipped(y, x, side, view)));
            }
    }
}

// Returns the network's value, and marks its tile if the value is not a probability.
__device__ float checked(float value, unsigned *faults) {
    if (faults && !(value >= -SLACK && value <= 1 + SLACK)) faults[blockIdx.z] = 1;
    return value;
}

// Probabilities (N * views, side, side) -> their mean over `count` views, in each output form that has an address:
// float32 in [0, 1], uint8 in 255 steps, or 255 where it is greater than the threshold. If a tile's views need several
// batches, `total` carries their sum: the `first` batch starts it, and only the last batch has a `count`. A value that
// is not a probability, such as NaN, sets its tile's `faults` to 1; the caller has set them to 0.
template <typename Out>
__device__ void gather(const Out *batch, float *total, int side, unsigned views, int first, int count,
                       float threshold, float *prob, byte *level, byte *mask, unsigned *faults) {
    __shared__ float turned[EDGE][EDGE + 1];
    const int left = blockIdx.x * EDGE, top = blockIdx.y * EDGE, tx = threadIdx.x;
    const size_t area = (size_t)side * side;
    const Out *tile = batch + blockIdx.z * __popc(views) * area;

    for (int i = threadIdx.y; i < EDGE; i += ROWS) {
        const int y = top + tx, x = left + i;
        if (y >= side || x >= side) continue;
        const Out *plane = tile;
        float sum = 0;
        for (int view = 0; view < 8; view++) {
            if (!(views >> view & 1)) continue;
            if (view & TURN) sum += checked(number(plane[flipped(side - 1 - x, y, side, view)]), faults);
            plane += area;
        }
        turned[i][tx] = sum;
    }
    __syncthreads();

    for (int i = threadIdx.y; i < EDGE; i += ROWS) {
        const int y = top + i, x = left + tx;
        if (y >= side || x >= side) continue;
        const Out *plane = tile;
        float sum = 0;
        for (int view = 0; view < 8; view++) {
            if (!(views >> view & 1)) continue;
            if (!(view & TURN)) sum += checked(number(plane[flipped(y, x, side, view)]), faults);
            plane += area;
        }
        sum += turned[tx][i];
        const size_t at = blockIdx.z * area + (size_t)y * side + x;
        if (!first) sum += total[at];
        if (!count) {
            total[at] = sum;
            continue;
        }
        const float found = sum / (float)count, mean = found > 0 ? found < 1 ? found : 1 : 0;
        if (prob) prob[at] = mean;
        if (level) level[at] = (byte)(mean * 255.0f + 0.5f);
        if (mask) mask[at] = mean > threshold ? 255 : 0;
    }
}

#define KERNEL extern "C" __global__ void __launch_bounds__(EDGE * ROWS, 4)

#define SPREAD(NAME, IN)                                                                                    \
    KERNEL NAME(const byte *tiles, IN *batch, int side, unsigned views, int bgr, float scale0, float scale1, \
                float scale2, float shift0, float shift1, float shift2) {                                   \
        const Numbers<COLOURS> with = {{scale0, scale1, scale2}, {shift0, shift1, shift2}};                 \
        spread(tiles, batch, side, views, COLOURS, bgr, with);                                              \
    }

// For other numbers of planes: how many are known only at the launch, so its loops cannot be unrolled.
#define SPREAD_BANDS(NAME, IN)                                                                  \
    KERNEL NAME(const byte *tiles, IN *batch, int side, unsigned views, int bgr, int planes,    \
                Numbers<MOST_BANDS> with) {                                                     \
        spread(tiles, batch, side, views, planes, bgr, with);                                   \
    }

#define GATHER(NAME, OUT)                                                                                 \
    KERNEL NAME(const OUT *batch, float *total, int side, unsigned views, int first, int count,           \
                float threshold, float *prob, byte *level, byte *mask, unsigned *faults) {                \
        gather(batch, total, side, views, first, count, threshold, prob, level, mask, faults);            \
    }

SPREAD(spread_float32, float)
SPREAD(spread_float16, half)
SPREAD_BANDS(spread_bands_float32, float)
SPREAD_BANDS(spread_bands_float16, half)
GATHER(gather_float32, float)
GATHER(gather_float16, half)
