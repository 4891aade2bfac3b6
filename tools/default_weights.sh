#!/usr/bin/env bash
# Makes the shipped weights from nothing but hnx commands: generated scenes, real frames that a teacher labelled, training
# from scratch in five stages, and the HardSwish twin. Every step goes on where it was stopped.
#
#   tools/default_weights.sh TEACHER.onnx FRAMES HELD_OUT [WORK]
#
# TEACHER.onnx  drivable area and lanes, such as TwinLiteNet
# FRAMES        real frames to learn from: pictures and videos in one folder
# HELD_OUT      real frames to measure on, none of them in FRAMES
# WORK          where everything goes, 3 GB [work/default-weights]
#
# COEF and SIZE choose another network. THREADS are the cores of each process, PROCESSES learn side by side from stage 4 on. On a GPU:
# COEF=3 SIZE=640x384 PROCESSES=1 WORKERS=12 AMP=auto BATCH=4 (times as many images a step)
set -euo pipefail
cd "$(dirname "$0")/.."

teacher=$1 frames=$2 held_out=$3 work=${4:-work/default-weights}
coef=${COEF:-0} size=${SIZE:-384x256} batch=${BATCH:-1}
machine=(-n "${WORKERS:-1}" --amp "${AMP:-off}")
export OMP_NUM_THREADS=${THREADS:-1}
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1  # larger pages: 7 % more images/s
mkdir -p "$work"

hnx data synth "$work/scenes" --train 4500 --val 200 --seed 11
# seeds that nothing was trained or chosen on; figures of 200 scenes differ by up to 4 points of mAP50 and 2 of road IoU
for seed in 12 31 32; do
  hnx data synth "$work/held-out$seed" --train 0 --val 200 --seed "$seed"
done
hnx data merge "$work/held-out" "$work/held-out12" "$work/held-out31" "$work/held-out32"
hnx data pseudo "$frames"/* --teacher "$teacher" --split train -o "$work/real"
hnx data pseudo "$held_out"/* --teacher "$teacher" --split val -o "$work/real-held-out"
# 41 frames beside 4500 scenes would be seen once in 110 steps
hnx data merge "$work/mixed" "$work/scenes" "$work/real*16"

launch=(hnx)
# OUTPUT PROJECT FROM options: a run that is complete is left alone, one that was stopped goes on; FROM may be empty
learn() {
  local output=$1 project=$2 from=$3
  shift 3
  [ -f "$output/report.json" ] && return
  [ -f "$output/last.pth" ] && from=last
  "${launch[@]}" train -p "$project" -c "$coef" --size "$size" -o "$(dirname "$output")" "${machine[@]}" \
    ${from:+-w "$from"} "$@"
}

# 1: what roads and cars are
learn "$work/stage1/bdd100k" bdd100k "" --data "$work/scenes" -b $((8 * batch)) --num-epochs 3 --lr 1e-3 --schedule constant \
  --warmup 200 --ema-decay 0.998 --save-interval 200 --seed 1
# 2: scenes and real frames; the areas count five times as much, or boxes hold nine tenths of the gradient
learn "$work/stage2/default_weights" tools/default_weights.yml "$work/stage1/bdd100k/best.safetensors" \
  --data "$work/mixed" -b $((4 * batch)) --num-epochs 7 --lr 2e-3 --warmup 300 --clip-norm 5 --ema-decay 0.998 --seg-weight 5 \
  --save-interval 400 --seed 2
# 3: areas and lanes once more; the boxes keep what they have (mAP50 0.67 before, 0.68 after; road IoU 0.81 and 0.84)
learn "$work/stage3/default_weights" tools/default_weights.yml "$work/stage2/default_weights/best.safetensors" \
  --data "$work/mixed" -b $((4 * batch)) --num-epochs 4 --lr 1e-3 --warmup 200 --clip-norm 5 --ema-decay 0.998 --seg-weight 12 \
  --save-interval 400 --seed 3
# NUMBER SCENES SEED FROM: a stage on scenes that no other one saw
fresh() {
  hnx data synth "$work/scenes$1" --train "$2" --val 100 --seed "$3"
  hnx data merge "$work/mixed$1" "$work/scenes$1" "$work/real*8"
  learn "$work/stage$1/default_weights" tools/default_weights.yml "$4" --data "$work/mixed$1" -b $((4 * batch)) --num-epochs 3 \
    --lr 1.2e-3 --warmup 100 --clip-norm 5 --ema-decay 0.996 --seg-weight 12 --save-interval 200 --seed "$1"
}

# 4, 5: more scenes say more than more epochs
launch=(torchrun --nproc-per-node "${PROCESSES:-2}" -m hnx)
fresh 4 2600 21 "$work/stage3/default_weights/best.safetensors"
fresh 5 2800 22 "$work/stage4/default_weights/best.safetensors"
swish=$work/stage5/default_weights/best.safetensors

# the HardSwish twin: every frame twice (after once it lost 1.3 points of mAP50 and 1.0 of lane IoU, after twice 1.0 and 0.9)
twin=$work/twin/best-hardswish
if [ ! -f "$twin/report.json" ]; then
  resume=()
  [ -f "$twin/last.pth" ] && resume=(--resume)
  "${launch[@]}" distill "$work/mixed5" -w "$swish" --size "$size" -b $((4 * batch)) --num-epochs 2 --lr 8e-4 --warmup 40 \
    --held-out 64 "${machine[@]}" --save-interval 100 --seed 5 -o "$work/twin" "${resume[@]}"
fi

# figures of docs/model-card.md
for name in swish hardswish; do
  weights=$swish
  [ "$name" = hardswish ] && weights=$twin/best.safetensors
  hnx export -w "$weights" --size "$size" -o "$work/exports/$name"
  hnx eval "$work/exports/$name"/* --data "$work/held-out" --runtime openvino:fp32 --json "$work/$name-scenes.json"
  hnx eval "$work/exports/$name"/* --data "$work/real-held-out" --runtime openvino:fp32 --json "$work/$name-frames.json"
done
