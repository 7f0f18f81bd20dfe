#!/usr/bin/env bash
# What waits for a GPU, in one go: builds, precisions found, latency of FP32, FP16, INT8 and of the three ways with
# transposed convolutions, roads against PyTorch; the runtime's tests, kernels and cost, PyTorch beside it, and a soak of
# 10,000 tiles. From the repository's root, nothing of dlink installed:
#
#     bench/gpu.sh FOLDER [ENV]
#
# FOLDER has ONNX files of one network (*.onnx: fp32, fp16, int8 by dlink-calibrate, and int8 with --deconv conv and
# fp16), and may have its checkpoint (*.th) and labelled tiles (tiles/). ENV is a file to source first, where TensorRT,
# pycuda and Polygraphy are not on the path. Figures go to bench/results.jsonl; $OUT, where it is set, gets a copy.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?"bench/gpu.sh FOLDER [ENV]: the folder with the ONNX files is missing"}
# shellcheck disable=SC1090
[[ -z ${2:-} ]] || source "$2"
python=$(command -v python3.10 || command -v python3)
[[ ${2:-} == *trt86* ]] || python=$(command -v python3)

mkdir -p build/types/dlink
for package in accuracy bench calib cli engine export nets scenes training trt_runtime; do
  ln -sfn "../../../$package" "build/types/dlink/$package"
done
ln -sf ../../../package/__init__.py build/types/dlink/__init__.py
export PYTHONPATH="$PWD/build/types${PYTHONPATH:+:$PYTHONPATH}"

nvidia-smi --query-gpu=name,driver_version,clocks.sm,power.limit --format=csv || true
arguments=()
checkpoint=$(find "$folder" -maxdepth 1 -name '*.th' | sort | head -1)
if [[ -n $checkpoint && -d $folder/tiles ]]; then
  arguments+=(--against "$checkpoint" --tiles "$folder/tiles")
fi
mapfile -t files < <(find "$folder" -maxdepth 1 -name '*.onnx' | sort)
[[ ${#files[@]} -gt 0 ]] || { echo "bench/gpu.sh: $folder has no .onnx files" >&2; exit 1; }
code=0
"$python" -m dlink.cli.gpu "${files[@]}" "${arguments[@]}" --append bench/results.jsonl || code=$?
"$python" -c 'import sys; from dlink.trt_runtime.cuda import look_for_gpus; sys.exit(not look_for_gpus().found)' || exit "$code"

# The runtime around the network: its tests, its kernels under compute-sanitizer where that is, what they and it cost.
if "$python" -c 'import pytest' 2>/dev/null; then
  "$python" -m pytest -q -p no:cacheprovider tests/gpu || code=$?
fi
if sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null); then
  for tool in memcheck racecheck; do
    "$sanitizer" --tool "$tool" --error-exitcode 1 "$python" -m dlink.bench.kernels --check || code=$?
  done
fi
"$python" -m dlink.bench.kernels || code=$?
against=()
[[ -z $checkpoint ]] || against=(--against "$checkpoint")
for file in "${files[@]}"; do
  plan=build/plans/$(basename "${file%.onnx}").plan
  [[ ! -e $plan ]] || "$python" -m dlink.bench.runtime "$plan" "${against[@]}" --append bench/results.jsonl || code=$?
done
[[ -z ${OUT:-} ]] || cp bench/results.jsonl "$OUT/"
exit "$code"
