#!/usr/bin/env bash
# Makes the shipped weights from nothing but hnx commands: generated scenes, real frames that a teacher labelled, training
# from scratch in two stages, and the HardSwish twin. Every step goes on where it was stopped.
#
#   tools/default_weights.sh TEACHER.onnx FRAMES HELD_OUT [WORK]
#
# TEACHER.onnx  drivable area and lanes, such as TwinLiteNet
# FRAMES        real frames to learn from: pictures and videos in one folder
# HELD_OUT      real frames to measure on, none of them in FRAMES
# WORK          where everything goes, 3 GB [work/default-weights]
#
# COEF and SIZE choose another network (COEF=3 SIZE=640x384, on a GPU), THREADS the cores of a CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

teacher=$1 frames=$2 held_out=$3 work=${4:-work/default-weights}
coef=${COEF:-0} size=${SIZE:-384x256}
export OMP_NUM_THREADS=${THREADS:-1}
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1  # larger pages: 7 % more images/s
mkdir -p "$work"

hnx data synth "$work/scenes" --train 4500 --val 200 --seed 11
hnx data synth "$work/held-out" --train 0 --val 200 --seed 12  # a seed that nothing was trained or chosen on
hnx data pseudo "$frames"/* --teacher "$teacher" --split train -o "$work/real"
hnx data pseudo "$held_out"/* --teacher "$teacher" --split val -o "$work/real-held-out"
# 41 frames beside 4500 scenes would be seen once in 110 steps
hnx data merge "$work/mixed" "$work/scenes" "$work/real*16"

# OUTPUT and options: a run that is complete is left alone, one that was stopped goes on
learn() {
  local output=$1
  shift
  [ -f "$output/report.json" ] && return
  local last=()
  [ -f "$output/last.pth" ] && last=(-w last)
  hnx train -p tools/default_weights.yml -c "$coef" --size "$size" -o "$(dirname "$output")" -n 1 "$@" "${last[@]}"
}

# 1: what roads and cars are
learn "$work/stage1/default_weights" --data "$work/scenes" -b 8 --num-epochs 3 --lr 1e-3 --schedule constant \
  --warmup 200 --ema-decay 0.998 --save-interval 200 --seed 1
# 2: scenes and real frames; the areas count five times as much, or boxes hold nine tenths of the gradient
learn "$work/stage2/default_weights" --data "$work/mixed" -b 4 --num-epochs 7 --lr 2e-3 --warmup 300 --clip-norm 5 \
  --ema-decay 0.998 --seg-weight 5 --save-interval 400 --seed 2 -w "$work/stage1/default_weights/best.safetensors"
