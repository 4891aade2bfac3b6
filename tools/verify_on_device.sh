#!/usr/bin/env bash
# Verify TensorRT, the CUDA runtimes and the power measurement on a real board or card, and print a table to paste into an issue.
#
#   tools/verify_on_device.sh [BUNDLE] [QDQ.onnx]
#
# BUNDLE: a folder written by `hnx export` (copied from any machine; needs no torch here), best with the INT8 and FP16
# networks of `hnx quantize --for tensorrt,fp16`. QDQ.onnx: another INT8 network. Builds take minutes on a Jetson. Nothing is changed on the machine but a temporary folder. Run it twice on
# a Jetson: as it is, and after `sudo nvpmodel -m 0 && sudo jetson_clocks`.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
bundle=${1:-}
qdq=${2:-}
if [ -z "$bundle" ]; then
  for bundle in exports/*/; do break; done
fi
if [ ! -f "$bundle/manifest.json" ]; then
  echo "no bundle: tools/verify_on_device.sh BUNDLE [QDQ.onnx] (hnx export makes one on any machine)" >&2
  exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
export XDG_CACHE_HOME="$work/cache"
cp -r "$bundle" "$work/bundle"
rm -f "$work"/bundle/*.plan "$work"/bundle/*.plan.json
rows=()
failed=0

row() { # name, result, remark
  rows+=("| $1 | $2 | ${3//|/ } |")
  printf '%-34s %-8s %s\n' "$1" "$2" "$3" >&2
  [ "$2" != FAILED ] || failed=1
}

hnx() { "$python" -m hnx "$@"; }

last() { tail -n 1 "$1" | cut -c1-120; }

step() { # name, expected exit code, command...; `may` before it takes 2 and 4 for "not on this machine"
  local name=$1 expected=$2 code=0
  shift 2
  "$@" >"$work/out" 2>"$work/err" || code=$?
  if [ "$code" -eq "$expected" ]; then
    row "$name" ok "$(last "$work/out")"
    return 0
  fi
  if [ -n "${optional:-}" ] && { [ "$code" -eq 2 ] || [ "$code" -eq 4 ]; }; then
    row "$name" skipped "$(head -n 2 "$work/err" | tr '\n' ' ' | cut -c1-200)"
    return 1
  fi
  row "$name" FAILED "exit code $code instead of $expected: $(head -n 2 "$work/err" | tr '\n' ' ' | cut -c1-200) $(last "$work/out")"
  return 1
}

may() { optional=yes step "$@"; }

field() { # JSON file, Python expression over `value`
  "$python" -c "import json, sys; value = json.load(open(sys.argv[1])); print($2)" "$1" 2>/dev/null || echo "?"
}

# -- the machine ---------------------------------------------------------------------------------------------------
model=$( (tr -d '\0' </proc/device-tree/model) 2>/dev/null || nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
l4t=$(head -n 1 /etc/nv_tegra_release 2>/dev/null | cut -d, -f1,2 || true)
power=$(nvpmodel -q 2>/dev/null | head -n 1 || true)
rows+=("| machine | - | ${model:-unknown} ${l4t:-} ${power:-} |")
state=$("$python" - <<'PY'
from runtimes.tensorrt.driver import probe
from runtimes.tensorrt.library import load
from hybridnets.errors import HnxError
state = probe()
gpus = ", ".join(f"{gpu.name} {gpu.sm}{' (shared memory)' if gpu.integrated else ''}" for gpu in state.gpus)
try:
    library = load("auto")
    words = f"{library.name} {library.version} ({library.typing}ly typed)"
except HnxError as error:
    words = f"{error.what}: {error.why}"
print(f"{gpus or state.problem}; driver for CUDA {state.driver_cuda / 1000:.2f}; {words}")
PY
)
row "CUDA and TensorRT" - "$state"
step "hnx doctor" 0 hnx doctor --json "$work/doctor.json"
while IFS='|' read -r name found; do
  [ -z "$name" ] || row "$name" - "$found"
done < <("$python" - "$work/doctor.json" <<'PY'
import json, sys

value = json.load(open(sys.argv[1]))
for finding in value["jetson"]:
    print(f"{finding['what']}|{finding['found']}" + (f"; to do: {finding['fix']}" if finding["fix"] else ""))
for source in value["power"]:
    print(f"power from {source['name']}|{source['reason'] or 'yes'}")
PY
)

# -- power and temperature -----------------------------------------------------------------------------------------
# what the parsers must take on this board: lines and rails as they are, to paste back
if command -v tegrastats >/dev/null; then
  row "a line of tegrastats" - "$(timeout 5 tegrastats --interval 500 2>/dev/null | head -n 1)"
fi
rails=$(grep -H . /sys/bus/i2c/devices/*/hwmon/hwmon*/{name,in*_label} /sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_* 2>/dev/null |
  sed 's,/sys/bus/i2c/,,' | tr '\n' ' ')
[ -z "$rails" ] || row "rails in /sys" - "$rails"
zones=""
for zone in /sys/class/thermal/thermal_zone*/; do
  [ ! -e "$zone/type" ] || zones="$zones $(cat "$zone/type")=$(cat "$zone/temp" 2>/dev/null || echo off)"
done
[ -z "$zones" ] || row "thermal zones" - "$zones"
cooling=$(cat /sys/class/thermal/cooling_device*/type 2>/dev/null | sort | uniq -c | tr -s ' \n' ' ')
[ -z "$cooling" ] || row "cooling devices" - "$cooling"
if "$python" -m benchmarks.power 10 >"$work/power" 2>"$work/err"; then
  while IFS= read -r line; do row "at rest, ${line%%: *}" - "${line#*: }"; done <"$work/power"
  # sources of the same rails, read one after another on a machine at rest: a fifth apart is not the same thing
  said=$("$python" - "$work/power" <<'PY'
import re, sys

watts = {}
for line in open(sys.argv[1]):
    match = re.match(r"(ina3221|tegrastats|jtop): (-?[\d.]+) W", line)
    if match:
        watts[match[1]] = float(match[2])
low, high = min(watts.values(), default=0.0), max(watts.values(), default=0.0)
text = ", ".join(f"{name} {value:.2f} W" for name, value in watts.items())
print("skipped" if len(watts) < 2 else "ok" if high - low <= 0.2 * high else "FAILED", text or "none of them is here")
PY
)
  row "sources of a board agree" "${said%% *}" "${said#* }"
else
  row "power at rest" FAILED "$(tail -n 1 "$work/err")"
fi
memory=$("$python" -c "import pycuda; print('pycuda', pycuda.VERSION_TEXT)" 2>/dev/null ||
  "$python" -c "import cuda.bindings as b; print('cuda-python', b.__version__)" 2>/dev/null || echo none)
row "GPU memory from" - "$memory"

# -- building and running ------------------------------------------------------------------------------------------
precisions=()
for precision in fp32 fp16; do
  if step "build $precision" 0 hnx build-trt "$work/bundle" "--$precision"; then
    precisions+=("$precision")
    sidecar=$(ls "$work"/bundle/*-"$precision"-*.plan.json)
    said=$(field "$sidecar" "'%s, said by %s' % (value['precision']['executed'], value['layers_from'])")
    [[ $said == "$precision, said by engine inspector" ]] && row "layers of $precision" ok "$said" || row "layers of $precision" FAILED "$said"
    row "build seconds, $precision" - "$(field "$sidecar" "value['timing_s']['build']")"
  fi
done
network=
if [ -n "$qdq" ]; then
  network="$work/bundle/$(basename "$qdq")"
  cp "$qdq" "$network"
elif grep -qE '"tensorrt-(weak|strong)"' "$work/bundle/manifest.json" && grep -q '"int8"' "$work/bundle/manifest.json"; then
  network="$work/bundle"
fi
if [ -z "$network" ]; then
  row "build int8" skipped "hnx quantize BUNDLE --for tensorrt,fp16 makes its network, on any machine"
elif step "build int8" 0 hnx build-trt "$network" --int8 -o "$work/bundle"; then
  sidecar=$(ls "$work"/bundle/*-int8-*.plan.json)
  row "network of int8" - "$(field "$sidecar" "value['onnx']['file'] + ', ' + value['tensorrt']['typing'] + 'ly typed'")"
  row "layers of int8" - "$(field "$sidecar" "value['precision']['layers']")"
fi
if step "build fp16 again (timing cache)" 0 hnx build-trt "$work/bundle" --fp16 -o "$work/again"; then
  row "build seconds with the cache" - "$(field "$(ls "$work"/again/*.json)" "value['timing_s']['build']")"
fi
may "build, optimisation level 5" 0 hnx build-trt "$work/bundle" --fp16 --opt-level 5 -o "$work/level"
may "build, version compatible" 0 hnx build-trt "$work/bundle" --fp16 --version-compatible -o "$work/version"
may "build for DLA core 0" 0 hnx build-trt "$work/bundle" --fp16 --device dla:0 --allow-gpu-fallback -o "$work/dla"

for precision in "${precisions[@]}"; do
  tolerance=$([ "$precision" = fp32 ] && echo 1e-4 || echo 2e-2)
  step "same numbers as onnxruntime, $precision" 0 hnx compare "$work/bundle" \
    --runtime "onnxruntime,tensorrt:$precision" --tolerance "$tolerance"
done
if step "bench" 0 hnx bench "$work/bundle" --runtime tensorrt --power auto --json "$work/bench.json"; then
  while IFS='|' read -r name result text; do row "$name" "$result" "$text"; done < <("$python" - "$work/bench.json" <<'PY'
import json, sys

report = json.load(open(sys.argv[1]))
power = report.get("power", {})
sources = ", ".join(f"{s['name']} ({' + '.join(s['total'])})" for s in power.get("sources", []))
print(f"power read by|{'-' if sources else 'skipped'}|{sources or power.get('missing')}")
idle = power.get("idle")
if idle:
    print(f"idle before and after|-|{idle['watts']} W, {idle['watts_at_the_end']} W")
for row in report["rows"]:
    name, found = f"{row['runtime']}:{row['precision']}", row.get("power") or {}
    for kind in ("forward", "end_to_end"):
        drawn = found.get(kind)
        if drawn is None:
            continue
        if "missing" in drawn:
            print(f"power of {name}, {kind}|FAILED|{drawn['missing']}")
            continue
        # nothing that computes takes less than a board at rest
        sane = drawn["joules_per_frame"] > 0 and (idle is None or drawn["watts"] > 0.95 * idle["watts"])
        print(
            f"power of {name}, {kind}|{'ok' if sane else 'FAILED'}|{drawn['watts']} W, {drawn['joules_per_frame']} J a frame, "
            f"{drawn['joules_per_frame_above_idle']} above idle, {drawn['readings']} readings, rails {drawn['rails_w']}"
        )
    if "temperature_c" in found:
        print(f"temperature of {name}|-|{found['temperature_c']}, throttled: {found['throttled'] or 'no'}")
PY
)
  while read -r line; do row "bench ${line%%=*}" - "${line#*=}"; done < <("$python" - "$work/bench.json" <<'PY'
import json, sys

def find(value):
    """Every row that ran, wherever the report keeps it."""
    if isinstance(value, dict):
        if {"runtime", "precision"} <= value.keys():
            yield value
        for item in value.values():
            yield from find(item)
    elif isinstance(value, list):
        for item in value:
            yield from find(item)

for row in find(json.load(open(sys.argv[1]))):
    text = json.dumps({key: value for key, value in row.items() if not isinstance(value, list)})
    print(f"{row['runtime']}:{row['precision']}={text[:400]}")
PY
)
fi

# -- CUDA without TensorRT -----------------------------------------------------------------------------------------
for name in torch-cuda onnxruntime-cuda onnxruntime-tensorrt; do
  reference=$([ "$name" = torch-cuda ] && echo torch || echo onnxruntime)
  # TensorRT computes FP32 with TF32, and ONNX Runtime has no option against it
  tolerance=$([ "$name" = onnxruntime-tensorrt ] && echo 1e-2 || echo 1e-4)
  may "same numbers as $reference, $name" 0 hnx compare "$work/bundle" --runtime "$reference,$name" --tolerance "$tolerance"
done
if may "bench of the CUDA runtimes" 0 hnx bench "$work/bundle" --fast --json "$work/cuda.json" \
  --runtime torch-cuda,onnxruntime-cuda,onnxruntime-tensorrt; then
  while IFS='|' read -r name text; do row "bench $name" - "$text"; done < <("$python" - "$work/cuda.json" <<'PY'
import json, sys

for row in json.load(open(sys.argv[1]))["rows"]:
    name = f"{row['runtime']}:{row['precision']}"
    if "skipped" in row:
        print(f"{name}|skipped: {row['skipped']['reason']}")
        continue
    device = {part: found["p50"] for part, found in row.get("device_ms", {}).items()}
    print(f"{name}|forward p50 {row['forward_ms']['p50']} ms, ran {row['executed']}, {device}, {row['execution']['details']}")
PY
)
fi

# -- what must be refused ------------------------------------------------------------------------------------------
plan=$(ls "$work"/bundle/*-fp16-*.plan 2>/dev/null | head -n 1)
if [ -n "$plan" ]; then
  mkdir "$work/kept" && cp "$plan" "$plan.json" "$work/kept/"
  sed -i 's/"version": "[0-9.]*"/"version": "8.0.0"/' "$plan.json"
  step "plan of another version is refused" 4 hnx bench "$work/bundle" --runtime tensorrt:fp16 --fast
  cp "$work/kept/$(basename "$plan").json" "$plan.json"
  truncate -s 1000 "$plan"
  step "truncated plan is refused" 4 hnx bench "$work/bundle" --runtime tensorrt:fp16 --fast
  cp "$work/kept/$(basename "$plan")" "$plan"
fi
step "hidden GPU is one message" 4 env CUDA_VISIBLE_DEVICES=-1 "$python" -m hnx build-trt "$work/bundle" --flavor trt

# -- everything else -----------------------------------------------------------------------------------------------
if "$python" -c "import pytest, xdist" 2>/dev/null; then
  step "tests on the device" 0 "$python" -m pytest -q -n 0 -m "gpu and trt" tests
  step "tests of the CUDA runtimes" 0 "$python" -m pytest -q -n 0 -m "gpu and not trt" tests/runtimes
else
  row "tests on the device" skipped "pip install pytest pytest-xdist, and torch and onnx for the exporter"
fi

echo
echo "| what | result | remark |"
echo "|---|---|---|"
printf '%s\n' "${rows[@]}"
exit "$failed"
