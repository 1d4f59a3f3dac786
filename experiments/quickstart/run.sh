#!/usr/bin/env bash
# Train each method with three seeds, then write table.md. From the project's root; about forty minutes
# on two CPU cores. Finished runs are kept: run it again after a stop.
set -euo pipefail
for seed in 0 1 2; do
  for method in mrl mic; do
    name=quickstart-$method-$seed
    [ -f "runs/$name/results.json" ] ||
      mic train experiments/quickstart/$method.yaml seed=$seed name=$name --overwrite
  done
done
python experiments/seeds_table.py quickstart mrl mic > experiments/quickstart/table.md
