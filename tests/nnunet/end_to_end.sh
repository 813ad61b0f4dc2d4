#!/usr/bin/env bash
# Stock nnU-Net with our trainers, from raw data to scores: `bash tests/nnunet/end_to_end.sh DATASET`
#
# DATASET is an nnU-Net v2 raw dataset of at least 13 cases. swin-umamba and nnunetv2 must be
# installed in the environment whose `bin` comes first in PATH. Runs on the CPU, in a few minutes for
# volumes as small as the hippocampus's, and leaves everything in $WORK, a new folder by default.
# Not run by .ci/run: nnunetv2 brings packages that do not load beside every build of PyTorch.
set -euo pipefail

dataset="$(cd "${1:?"usage: $0 DATASET"}" && pwd)"
work="${WORK:-"$(mktemp -d)"}"
name="Dataset901_Short"
export nnUNet_raw="$work/raw" nnUNet_preprocessed="$work/preprocessed" nnUNet_results="$work/results"
export nnUNet_n_proc_DA=1 nnUNet_def_n_proc=2
unset nnUNet_extTrainer SWIN_UMAMBA_PRETRAINED

step() {
  printf '\n=== %s (%d s)\n' "$1" "$SECONDS"
}

step "Ten cases for training, three for testing, in $work"
python - "$dataset" "$nnUNet_raw/$name" <<'PYTHON'
import json
import shutil
import sys
from pathlib import Path

source, target = map(Path, sys.argv[1:])
description = json.loads((source / "dataset.json").read_text())
ending = description["file_ending"]
cases = sorted(path.name.removesuffix(ending) for path in (source / "labelsTr").glob("*" + ending))
for part, chosen in {"Tr": cases[:10], "Ts": cases[10:13]}.items():
    for folder in ("images", "labels"):
        (target / f"{folder}{part}").mkdir(parents=True)
    for case in chosen:
        shutil.copy(source / "labelsTr" / f"{case}{ending}", target / f"labels{part}")
        for image in (source / "imagesTr").glob(f"{case}_????{ending}"):
            shutil.copy(image, target / f"images{part}")
description["numTraining"] = 10
(target / "dataset.json").write_text(json.dumps(description))
PYTHON

step "Plan and preprocess"
nnUNetv2_plan_and_preprocess -d 901 -c 2d -np 2 --verify_dataset_integrity
plans="$nnUNet_preprocessed/$name/nnUNetPlans.json"
python - "$plans" <<'PYTHON'
import json
import sys
from pathlib import Path

path = Path(sys.argv[1])
plans = json.loads(path.read_text())
plans["configurations"]["2d"]["batch_size"] = 2
path.write_text(json.dumps(plans))
PYTHON

# The same trainers, cut short, under the same names: found first while training. Prediction then
# reads their checkpoints with the real ones.
mkdir -p "$work/short"
cat >"$work/short/short_trainers.py" <<'PYTHON'
import os

from swin_umamba.nnunet.trainers import swin_umamba_trainers as real


class Short:
    def initialize(self):
        self.num_epochs = int(os.environ["EPOCHS"])
        self.num_iterations_per_epoch = 3
        self.num_val_iterations_per_epoch = 1
        self.save_every = 1
        super().initialize()


for name in [name for name in dir(real) if name.startswith("nnUNetTrainer")]:
    globals()[name] = type(name, (Short, getattr(real, name)), {})
PYTHON
eval "$(swin-umamba nnunet-path)"
real="$nnUNet_extTrainer"

train() {
  # No processes that augment: on few cores they would take longer to start than to train.
  EPOCHS="${EPOCHS:-2}" nnUNet_n_proc_DA=0 nnUNet_extTrainer="$work/short:$real" \
    nnUNetv2_train 901 2d 0 -tr "$1" -device cpu "${@:2}"
}

step "Without weights a pretrained trainer says so"
if train nnUNetTrainerSwinUMamba >"$work/refused.log" 2>&1; then
  echo "trained without the weights it asks for" >&2
  exit 1
fi
grep "set SWIN_UMAMBA_PRETRAINED" "$work/refused.log"

# In the form of VMamba's ImageNet checkpoints, but with random numbers.
export SWIN_UMAMBA_PRETRAINED="$work/encoder.pth"
python - "$SWIN_UMAMBA_PRETRAINED" <<'PYTHON'
import sys

import torch

from swin_umamba import create_model

encoder = create_model("swin_umamba_d", in_channels=3, out_channels=2).vssm_encoder
torch.save({"model": encoder.state_dict()}, sys.argv[1])
PYTHON

for trainer in nnUNetTrainerSwinUMamba{,D}{,Scratch}; do
  step "$trainer: train"
  train "$trainer"

  step "$trainer: predict, as the release's commands do"
  predictions="$work/predictions/$trainer"
  nnUNetv2_predict -i "$nnUNet_raw/$name/imagesTs" -o "$predictions" -d 901 -c 2d -tr "$trainer" \
    -f 0 -chk checkpoint_1.pth --disable_tta -device cpu -npp 1 -nps 1

  step "$trainer: evaluate"
  nnUNetv2_evaluate_folder "$nnUNet_raw/$name/labelsTs" "$predictions" -np 1 \
    -djfile "$nnUNet_raw/$name/dataset.json" -pfile "$plans"
  python - "$predictions/summary.json" <<'PYTHON'
import json
import sys
from pathlib import Path

summary = json.loads(Path(sys.argv[1]).read_text())
print(len(summary["metric_per_case"]), "cases, mean Dice", summary["foreground_mean"]["Dice"])
assert len(summary["metric_per_case"]) == 3
PYTHON
done

step "A third epoch, then scores alone, without the pretrained weights at hand"
unset SWIN_UMAMBA_PRETRAINED
EPOCHS=3 train nnUNetTrainerSwinUMambaD --c | tee "$work/third.log"
grep "Epoch 2" "$work/third.log"
EPOCHS=3 train nnUNetTrainerSwinUMambaD --val

step "Done: four trainers, from raw data to scores, in $work"
