"""Runs ONNX files on CPUs by OpenVINO. `dlink.runtime.open_model` imports it for an .onnx file."""
