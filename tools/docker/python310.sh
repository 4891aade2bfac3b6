#!/usr/bin/env bash
# Python 3.10 and TensorRT's Python module for it, on JetPack 5, whose own Python is 3.8. NVIDIA's sources of the module are
# compiled against the TensorRT that JetPack installed; the library stays as it is.
#
#   tools/docker/python310.sh FOLDER    leaves FOLDER/python (the interpreter's path) and FOLDER/wheels/tensorrt-*.whl
#
# Where python3 is 3.10 or later already, nothing is done. Needs git, cmake, g++, and the development packages of TensorRT.
# Not verified on hardware; on the board: tools/docker/python310.sh ~/trt && "$(cat ~/trt/python)" -m venv ...
set -euo pipefail

folder=${1:?usage: tools/docker/python310.sh FOLDER}
if python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
  echo "python3 is new enough, and JetPack has TensorRT's module for it" >&2
  exit 0
fi

headers=/usr/include/$(uname -m)-linux-gnu
if [ ! -f "$headers/NvInferVersion.h" ]; then
  echo "no TensorRT headers in $headers: sudo apt install nvidia-jetpack" >&2
  exit 1
fi
number() { awk -v name="NV_TENSORRT_$1" '$2 == name { print $3 }' "$headers/NvInferVersion.h"; }
branch="release/$(number MAJOR).$(number MINOR)"

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# a complete interpreter with its headers; Ubuntu 20.04 has no package of 3.10
python3 -m pip install --quiet --user uv
UV_PYTHON_INSTALL_DIR="$folder/interpreter" python3 -m uv python install 3.10
python=$(UV_PYTHON_INSTALL_DIR="$folder/interpreter" python3 -m uv python find 3.10)

git clone --quiet --depth 1 --branch "$branch" https://github.com/NVIDIA/TensorRT.git "$work/TensorRT"
git -C "$work/TensorRT" submodule --quiet update --init --depth 1 parsers/onnx
# 2.9 is the first that knows Python 3.10 and still takes the sources of TensorRT 8.5
git clone --quiet --depth 1 --branch v2.9.2 https://github.com/pybind/pybind11.git "$work/external/pybind11"
mkdir -p "$work/external/python3.10"
cp -r "$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')" "$work/external/python3.10/include"

# its last step calls python3 to pack the wheel
mkdir "$work/bin"
"$python" -m venv "$work/pack"
"$work/pack/bin/pip" install --quiet setuptools wheel
ln -s "$work/pack/bin/python" "$work/bin/python3"
(
  cd "$work/TensorRT/python"
  PATH="$work/bin:$PATH" TRT_OSSPATH="$work/TensorRT" EXT_PATH="$work/external" TENSORRT_MODULE=tensorrt \
    PYTHON_MAJOR_VERSION=3 PYTHON_MINOR_VERSION=10 TARGET_ARCHITECTURE=$(uname -m) bash ./build.sh
)
mkdir -p "$folder/wheels"
cp "$work"/TensorRT/python/build/dist/tensorrt-*.whl "$folder/wheels/"
echo "$python" >"$folder/python"
echo "Python: $python; module: $(ls "$folder/wheels")" >&2
