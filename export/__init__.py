"""Checkpoint -> ONNX, proven against PyTorch before the file gets its name. Needs torch, onnx and onnxruntime."""
