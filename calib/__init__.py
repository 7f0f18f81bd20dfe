"""ONNX + tiles -> INT8 ONNX with the same roads. Needs ONNX, ONNX Runtime, OpenVINO and what accuracy/ needs."""
