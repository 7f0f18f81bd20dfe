#!/usr/bin/env bash
# Takes networks of other libraries through dlink: bench/peers/elsewhere.sh [WORK]
# Linknet and Unet of segmentation-models-pytorch and torchvision's FCN, with made-up weights, each as ONNX by both of
# PyTorch's exporters and as an archive of torch.export. Environments and files go to WORK (build/elsewhere).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-build/elsewhere} side=${SIDE:-256}
mkdir -p "$work"

if [ ! -x "$work/env/bin/python" ]; then
    python3 -m venv "$work/env"
    "$work/env/bin/pip" install -q torch torchvision segmentation-models-pytorch onnx onnxscript
fi
"$work/env/bin/python" "$here/make_elsewhere.py" "$work" "$side"
[ -d "$work/scenes" ] || dlink-scenes "$work/scenes" --count 14 --size "$side"

took() { # a network's file, the arguments that its output needs
    local made="$work/made-$(basename "$1" | tr . -)"
    for precision in fp32 fp16; do
        dlink-export "$1" "$made-$precision.onnx" --tile "$side" --tiles "$work/scenes" --precision "$precision" \
            --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 "${@:2}"
    done
    # Made-up weights have no margins, so INT8's limits are wide here.
    dlink-calibrate "$made-fp16.onnx" "$work/scenes" -o "$made-int8.onnx" --samples 6 --held 3 \
        --min-agreement 0.5 --max-iou-drop 0.5
    dlink-build "$made-int8.onnx" -o "$made-int8.plan" --target tensorrt-rtx
}
for file in "$work"/{linknet,unet}*.{onnx,pt2}; do took "$file" --activation sigmoid; done
for file in "$work"/fcn*.{onnx,pt2}; do took "$file" --activation softmax --class 1; done
