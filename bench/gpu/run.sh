#!/usr/bin/env bash
# Runs on a host with a GPU, without an installed dlink (README.md here has the order):
#
#     bench/gpu/run.sh take FOLDER ...                        moves parts to the stage, checks and unpacks them
#     bench/gpu/run.sh list                                   lists the stages, what they need and their time
#     bench/gpu/run.sh STAGE ... [--again] [--engine trt86]   runs stages; each result goes to $OUT/results.jsonl at once
#     bench/gpu/run.sh aims [results.jsonl ...]               lists every aim, its figure, and whether it was met
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/types/dlink
for mark in */py.typed; do
  ln -sfn "../../../${mark%/py.typed}" "build/types/dlink/${mark%/py.typed}"
done
ln -sf ../../../package/__init__.py build/types/dlink/__init__.py
export PYTHONPATH="$PWD/build/types${PYTHONPATH:+:$PYTHONPATH}"
if [[ $# -eq 0 || ($1 == take && $# -eq 1) ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
module=stages
if [[ ${1:-} == take ]]; then
  module=parts
  shift
fi
exec "${PYTHON:-python3}" -m "dlink.bench.gpu.$module" "$@"
