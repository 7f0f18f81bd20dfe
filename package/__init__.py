"""dlink: from a trained road-segmentation network to road masks.

Nothing is imported here. The folders, each by its full name:

dlink.trt_runtime   model + image -> mask: `open_model`, `Segmenter`, the errors; what an application embeds
dlink.export        checkpoint -> ONNX, proven
dlink.calib         ONNX + tiles -> INT8 ONNX, judged
dlink.engine        ONNX -> TensorRT plan
dlink.nets          the networks and their checkpoints
dlink.training      tiles -> checkpoint
dlink.scenes        generated scenes with exact road masks
dlink.accuracy      masks against masks
dlink.bench         how fast
dlink.cli           the commands
"""

__version__ = "0.1.0"
