#!/usr/bin/env bash
# Train mrl and mic of an experiment with three seeds, then write its table.md:
#   experiments/seeds.sh captions
# From the project's root, with .venv active. Finished runs are kept: run it again after a stop.
set -euo pipefail
experiment=${1:?name a folder of experiments/, for example quickstart}
for seed in 0 1 2; do
  for method in mrl mic; do
    name=$experiment-$method-$seed
    [ -f "runs/$name/results.json" ] ||
      mic train "experiments/$experiment/$method.yaml" seed=$seed name="$name" --overwrite
  done
done
python experiments/seeds_table.py "$experiment" mrl mic > "experiments/$experiment/table.md"
