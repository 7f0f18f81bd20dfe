#!/usr/bin/env bash
# On a host with a GPU, nothing of dlink installed (README.md here says in which order):
#
#     bench/gpu/run.sh take FOLDER ...                        parts that arrived: to the stage, checked, unpacked
#     bench/gpu/run.sh list                                   the stages, what each needs and about how long it takes
#     bench/gpu/run.sh STAGE ... [--again] [--engine trt86]   results go to $OUT/results.jsonl as they come
#     bench/gpu/run.sh aims [results.jsonl ...]               every aim, its figure, and whether it was met
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
