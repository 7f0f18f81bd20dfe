#!/usr/bin/env bash
# Quantises the same network with other tools and with dlink: bench/peers/run.sh CHECKPOINT TRAIN VALID [WORK]
# TRAIN and VALID are folders of <id>_sat.png with <id>_mask.png. Environments and files go to WORK (build/peers).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkpoint=$1 train=$2 valid=$3 work=${4:-build/peers} side=${SIDE:-384}
mkdir -p "$work/same"

environment() { # name, packages...
    [ -x "$work/$1/bin/python" ] || { python3 -m venv "$work/$1" && "$work/$1/bin/pip" install -q "${@:2}"; }
}
environment nncf nncf openvino==2026.4.1 onnx onnxruntime opencv-python-headless
environment modelopt 'nvidia-modelopt[onnx]' opencv-python-headless

dlink-export "$checkpoint" "$work/fp32.onnx" --tile "$side" --tiles "$train"
dlink-export "$checkpoint" "$work/fp16.onnx" --tile "$side" --tiles "$train" --precision fp16
for image in $(ls "$train"/*_sat.* | sort | head -32); do # dlink keeps eight of these back; no tool is evaluated on them
    ln -sf "$(realpath "$image")" "$(realpath "${image%_sat.*}_mask.png")" "$work/same/"
done

timed() { # name, command...
    local start=$SECONDS
    if "${@:2}" > "$work/$1.log" 2>&1; then echo "$1: $((SECONDS - start)) s"; else echo "$1: FAILED, see $work/$1.log"; fi
}
timed ort_default python "$here/by_onnxruntime.py" "$work/fp32.onnx" "$train" "$work/ort_default.onnx" "$side" default
timed ort_symmetric python "$here/by_onnxruntime.py" "$work/fp32.onnx" "$train" "$work/ort_symmetric.onnx" "$side" symmetric
for kind in default mixed accuracy; do
    timed "nncf_$kind" "$work/nncf/bin/python" "$here/by_nncf.py" "$work/fp32.onnx" "$train" "$work/nncf_$kind.xml" "$side" "$kind"
done
timed nncf_onnx "$work/nncf/bin/python" "$here/by_nncf.py" "$work/fp32.onnx" "$train" "$work/nncf_onnx.onnx" "$side" onnx
for method in entropy max; do
    timed "modelopt_$method" "$work/modelopt/bin/python" "$here/by_modelopt.py" "$work/fp32.onnx" "$train" "$work/modelopt_$method.onnx" "$side" "$method"
done
timed dlink dlink-calibrate "$work/fp16.onnx" "$work/same" -o "$work/dlink.onnx" --samples 24
made=()
for name in ort_default.onnx ort_symmetric.onnx nncf_default.xml nncf_mixed.xml nncf_accuracy.xml nncf_onnx.onnx \
    modelopt_entropy.onnx modelopt_max.onnx dlink.onnx; do
    [ ! -e "$work/$name" ] || made+=("$work/$name")
done
python "$here/judge.py" "$work/fp32.onnx" "$work/fp16.onnx" "$valid" "$train" "$side" "${made[@]}"
