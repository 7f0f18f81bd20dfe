"""ONNX + tiles -> INT8 ONNX whose roads are the float network's roads. Needs ONNX, ONNX Runtime, OpenVINO and what accuracy needs."""
