"""ONNX graphs: read, analysed, changed, and run by ONNX Runtime, for export, calibration and builds."""
