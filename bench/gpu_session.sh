#!/usr/bin/env bash
# Fifteen minutes on one GPU, the most valuable first, everything into one folder:
#
#     bash bench/gpu_session.sh [FOLDER]                  # FOLDER: gpu-session by default
#     DEVICE=cpu bash bench/gpu_session.sh [FOLDER]       # tiny stand-ins for everything, where there is no GPU
#
# Every part has a time limit of its own, and a part that fails or runs out of time does not stop the others. DATA is the
# folder with cifar-10-batches-bin; without it the training at the end learns digits. TARGET is the GPU of the kernels'
# least times (sm_90 for H100 and H200, sm_80 for A100).
set -uo pipefail
cd "$(dirname "$0")/.."

folder=${1:-gpu-session}
device=${DEVICE:-cuda}
target=${TARGET:-sm_90}
total=${SECONDS_IN_ALL:-880}
mkdir -p "$folder"
export DEVICE=$device PYTHONUNBUFFERED=1 NEUROAE_GPU_EXAMPLES=${NEUROAE_GPU_EXAMPLES:-30}

# part NAME LIMIT COMMAND...: runs the command for at most LIMIT seconds, and writes its output to FOLDER/NAME.txt.
part() {
  local name=$1 limit=$2 begin=$SECONDS status=0
  shift 2
  local left=$((total - SECONDS))
  if ((left < 10)); then
    echo "$name: left out, no time is left" | tee -a "$folder/summary.txt"
    return
  fi
  timeout --kill-after=5 $((limit < left ? limit : left)) "$@" >"$folder/$name.txt" 2>&1 || status=$?
  local result="done"
  if ((status == 124 || status == 137)); then result="out of time"; elif ((status)); then result="FAILED ($status)"; fi
  echo "$name: $result after $((SECONDS - begin)) s" | tee -a "$folder/summary.txt"
  tail -n "${LINES_SHOWN:-15}" "$folder/$name.txt" | sed 's/^/    /'
}

: >"$folder/summary.txt"
git rev-parse HEAD >"$folder/commit.txt" 2>/dev/null || true

if [[ $device == cuda ]]; then
  part machine 20 bash -c 'nvidia-smi; python -c "import torch, triton; print(torch.__version__, triton.__version__)"'
  part correctness 200 python -m pytest -q -p no:cacheprovider -m gpu -n 12 tests
  part attack_step 80 python -m pytest -q -p no:cacheprovider bench/test_gpu.py --benchmark-only --rounds 5 -k eot
  part training_step 80 python -m pytest -q -p no:cacheprovider bench/test_gpu.py --benchmark-only --rounds 5 -k training
  part encode 60 python -m pytest -q -p no:cacheprovider bench/test_gpu.py --benchmark-only --rounds 5 -k encode
  part defense 150 python -m pytest -q -p no:cacheprovider bench/test_gpu.py --benchmark-only --rounds 5 -k "defense or layer or cost"
  part floors 60 python -m bench.gpu_budgets --targets "$target" --json "$folder/floors.json"
  part kernels 60 python -m bench.gpu_kernels --floors "$folder/floors.json" --target "$target"
  part sweep 90 python -m bench.gpu_kernels --sweep --settings cifar10
else
  # One run of pytest, since loading PyTorch takes most of the time here, and one thread, since nothing is timed in earnest.
  part machine 150 python -c 'import torch, triton; print("no GPU", torch.__version__, triton.__version__)'
  part correctness 150 env TRITON_INTERPRET=1 python -m pytest -q -p no:xdist -p no:cacheprovider tests/kernels/test_triton_checks.py
  part benchmarks 300 python -m pytest -q -p no:cacheprovider --benchmark-only --rounds 1 --threads 1 \
    "bench/test_gpu.py::test_encode[CIFAR-10 2]" "bench/test_gpu.py::test_first_layer[float32]" \
    "bench/test_gpu.py::test_eot_step[float32]" "bench/test_gpu.py::test_training_step[float32-2]"
  part kernels 150 python -m bench.gpu_kernels --device cpu --settings odd --batch 2
  part sweep 150 python -m bench.gpu_kernels --device cpu --settings odd --batch 2 --sweep
fi
part host_time 60 python -m bench.host_time --blocks 5

# Trainings take what is left. They resume, so a longer session goes on where this one ended.
training=(python -m neuroae train --device "$device" --output "$folder/training")
if [[ $device == cuda && -n ${DATA:-} ]]; then
  part training 880 "${training[@]}" --dataset cifar10 --data-dir "$DATA" --precision bfloat16
else
  part training 150 "${training[@]}" --dataset digits --epochs 1
fi
echo "everything is in $folder after $SECONDS s"
cat "$folder/summary.txt"
