"""ONNX graphs: read, looked through, changed, and run by ONNX Runtime. Export, calibration and builds share it."""
