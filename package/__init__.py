"""dlink: from a trained road-segmentation network to road masks.

Nothing is imported here. The folders, each by its full name:

dlink.runtime           model + image -> mask: `open_model`, `Segmenter`, the errors; what an application embeds
dlink.openvino_runtime  ONNX files on CPUs, by OpenVINO
dlink.trt_runtime       plans on NVIDIA GPUs, by TensorRT and CUDA
dlink.imagery           pictures, GeoTIFFs, folders of tiles
dlink.onnx_graph        ONNX graphs: read, analysed, changed, run
dlink.nets              the networks and their checkpoints
dlink.export            checkpoint -> ONNX, proven
dlink.calib             ONNX + tiles -> INT8 ONNX, evaluated
dlink.engine            ONNX -> TensorRT plan
dlink.training          tiles -> checkpoint
dlink.scenes            generated scenes with exact road masks
dlink.accuracy          masks against masks
dlink.maps              masks of any size -> roads as lines
dlink.live              live video -> roads in time, a session, a map, a page
dlink.bench             speed measurements
dlink.doctor            what this machine has, and which extra installs what
dlink.cli               the commands
"""

__version__ = "0.1.0"
