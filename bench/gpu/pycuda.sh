#!/usr/bin/env bash
# Builds a wheel of pycuda for a Python, on a machine that needs no GPU, no driver and no CUDA:
#
#     bench/gpu/pycuda.sh PYTHON OUT_DIR
#
# writes OUT_DIR/pycuda-*.whl, without curand. It does nothing if a wheel of this Python and script is there already.
# cuda.h is that of CUDA_HOME (default /usr/local/cuda), or pip brings it. Takes about a minute; needs pip and g++.
set -euo pipefail
shopt -s inherit_errexit

PYCUDA=2026.1
HEADERS=("nvidia-cuda-runtime==13.0.*" "nvidia-cuda-profiler-api==13.0.*")  # cuda.h and cudaProfiler.h

die() { echo "pycuda.sh: $*" >&2; exit 1; }

[[ $# -eq 2 ]] || { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
command -v g++ >/dev/null || die "needs g++: apt-get install g++"
python=$("$1" -c 'import sys; print(sys.executable)')
script=$(realpath "$0")
mkdir -p "$2"
out=$(realpath "$2")

built="$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))') $(sha256sum < "$script")"
[[ $(cat "$out/pycuda.built" 2>/dev/null) != "$built" ]] || exit 0
rm -f "$out"/pycuda.built "$out"/pycuda-*.whl

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

include=${CUDA_HOME:-/usr/local/cuda}/include
if [[ ! -e $include/cuda.h || ! -e $include/cudaProfiler.h ]]; then
  "$python" -m pip install -q --no-deps --target "$work/headers" "${HEADERS[@]}"
  include=$(dirname "$(find "$work/headers" -name cuda.h)")
fi

# A stand-in for libcuda to link with. One function is enough, also for linkers that drop unused libraries.
echo 'int cuInit(unsigned flags) { return 34; }  // CUDA_ERROR_STUB_LIBRARY' \
  | g++ -x c -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$work/libcuda.so" -

# pycuda's setup.py has no command-line options; it reads this file in the home directory.
cat > "$work/.aksetup-defaults.py" <<CONF
CUDA_ROOT = "$(dirname "$include")"
CUDA_INC_DIR = ["$include"]
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$work"]
CUDADRV_LIBNAME = ["cuda"]
CXXFLAGS = ["-w", "-O1", "-g0"]
CONF
export XDG_CONFIG_HOME=${XDG_CONFIG_HOME:-$HOME/.config}  # pip's own settings stay
HOME=$work "$python" -m pip wheel --no-deps --no-cache-dir --no-binary pycuda -w "$out" "pycuda==$PYCUDA" \
  > "$out/pycuda.log" 2>&1 || { tail -n 20 "$out/pycuda.log" >&2; die "pycuda did not build; the log is $out/pycuda.log"; }
echo "$built" > "$out/pycuda.built"
