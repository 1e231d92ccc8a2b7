#!/usr/bin/env bash
# What only a GPU can tell, in under ten minutes: whether the notebooks run at full size, the tests that need CUDA, the time
# of a step, and a training of the recipe from ImageNet weights. Results go to $OUT (default output/gpu), each with the card's name.
#
#     python -m research pack --data KITTI --output output/pack     # before, where the photographs are: some 40 MB
#     OUT=output/gpu research/gpu.sh output/pack                    # where the GPU is
#
# The packed pictures have the network's size, so crops of them are enlarged: the figures are not those of the photographs.
#
# TRY=1 does it all at the smallest sizes on the CPU. A part that fails does not keep the next from being tried.
# MINUTES of training (default 5), PYTHON the interpreter, PARTS some of "notebooks tests steps train".
set -uo pipefail
cd "$(dirname "$0")/.."
pack=$(realpath -m "${1:?give the folder that python -m research pack wrote}")
out=$(realpath -m "${OUT:-output/gpu}") python=${PYTHON:-python3} minutes=${MINUTES:-5}
device=cuda profile=full size=() steps=() precision=bf16 row=from_imagenet quick=()
if [ -n "${TRY:-}" ]; then
    device=cpu profile=tiny minutes=0.02 precision=float32 row=base quick=(--quick --repeats 1)
fi
mkdir -p "$out"
failed=()

part() {  # part NAME COMMAND...: its output goes to the screen and to a log, its end and seconds to a line
    local name=$1 start=$SECONDS
    shift
    case " ${PARTS:-notebooks tests steps train} " in *" ${name%%_*} "*) ;; *) return ;; esac
    "$@" 2>&1 | tee "$out/$name.log" || failed+=("$name")
    echo "$name: $((SECONDS - start)) s" | tee -a "$out/times.txt"
}

"$python" -c 'from research.benchmarks.measure import machine; import json; print(json.dumps(machine(0), indent=1))' | tee "$out/machine.json"
part notebooks "$python" -m monodepth_lib.commands.run 05_training 06_testing -p profile "$profile" -p device "$device" \
    -p epochs 1 -p fine_tune none -p weights "$out/notebooks/weights.safetensors" --output "$out/notebooks"
part tests "$python" -m pytest -q tests/test_gpu.py tests/test_fast.py
part steps "$python" -m research.benchmarks --only step --device "$device" "${quick[@]}" --output "$out/steps"
part train "$python" -m research train "$row" --data "$pack" --val-drives none --test-drives none --minutes "$minutes" \
    --device "$device" --precision "$precision" --cache-dir "$out/cache" --output "$out/train"
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}; see their logs in $out"; exit 1; }
echo "all parts done; $out/train/weights.safetensors is measured with monodepth evaluate where the photographs are"
