"""OpenVINO behind the runtime's seam: ONNX files on CPUs. `dlink.runtime.open_model` comes here for them."""
