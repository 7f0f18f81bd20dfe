"""Record how TensorRT's Python bindings take and give arrays.

    python -m tests.support.tensorrt_arrays WHEEL... > tests/support/tensorrt_arrays.json

For the NumPy of this Python, and for the wheels of tensorrt_api.py, which says how they are loaded. `trt.Weights`
is made of the array 1, 2, 3, 4; `takes` is what its C++ side then points to, `gives` what its `numpy()` returns.

Beside NumPy 1 (1.26.4) all give what they took. Beside NumPy 2 those below 10.16 give an array with steps of 0 bytes,
which is its first value over and over: they were made with a pybind11 before 2.12, to which every item of NumPy 2 has
0 bytes (pybind/pybind11#5009). An array that begins with a 0 comes back as zeros.
"""

import sys

from tests.support.tensorrt_api import record

# The C++ side: an instance of pybind11's is Python's head and a pointer, here to nvinfer1::Weights, which is
# {int32 type; const void *values; int64 count}.
LOOK = """
import ctypes
import numpy as np
weights = trt.Weights(given := np.arange(1, 5, dtype=np.float32))
held = ctypes.cast(id(weights) + object.__basicsize__, ctypes.POINTER(ctypes.c_void_p))[0]
_, values, count = ctypes.cast(held, ctypes.POINTER(ctypes.c_uint64))[:3]
takes = list((ctypes.c_float * count).from_address(values))
print(json.dumps({"numpy": np.__version__, "takes": takes, "gives": weights.numpy().tolist()}))
"""

if __name__ == "__main__":
    print(record(sys.argv[1:], LOOK))
