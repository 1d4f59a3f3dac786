#!/usr/bin/env bash
# The whole comparison, from the project's root with .venv active and the shared data beside it:
#   experiments/paper/run.sh              on the language model that it makes first
#   experiments/paper/run.sh first_token  five methods on it, pooled by the first token, as in the paper
#   experiments/paper/run.sh bert_base    the same methods on a backbone of hub/
# What is finished is kept: run it again after a stop. The first form writes the tables and pictures
# of this folder, the second those of first_token/, the third runs/paper-bert_base-test/table.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=experiments/paper
variant=${1:-}
backbone=$variant
prefix=paper${variant:+-$variant}
methods="simcse mrl ese ese_light mic_paper without_scr without_sir without_floor tau_0 last_layer gamma_1"
changes=()
if [ "$variant" = first_token ]; then
  backbone=
  methods="simcse mrl ese mic_paper gamma_1"
  changes=(encoder.pooling=cls trainer.learning_rate=3.0e-4)
fi
if [ -z "$backbone" ] && [ ! -d runs/paper-language-model ]; then
  python $here/language_model/pretrain.py $here/language_model/minilm_lower.yaml
fi
names=()
for method in $methods; do
  for seed in 0 1 2; do
    name=$prefix-$method-$seed
    names+=("runs/$name")
    [ -f "runs/$name/results.json" ] ||
      mic train "$here/${backbone:+hub/$backbone/}$method.yaml" seed=$seed name="$name" \
        "${changes[@]}" --overwrite
  done
done
suite=$here/test.yaml dims=16,32,64,128,256,384
if [ -n "$backbone" ]; then suite=paper dims=16,32,64,128,256,512,768; fi
mic evaluate "${names[@]}" --suite $suite --data ../shared/data --dims $dims --to "runs/$prefix-test"
if [ -z "$backbone" ]; then
  cp "runs/$prefix-test/table.md" "runs/$prefix-test/quality.png" "$here/$variant"
  python $here/differences.py "runs/$prefix-test"
  python $here/picture.py "runs/$prefix-test"
fi
