"""From an ONNX file of ours to a TensorRT plan with its manifest."""
