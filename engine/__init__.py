"""Builds an ONNX file of dlink into a TensorRT plan with its manifest."""
