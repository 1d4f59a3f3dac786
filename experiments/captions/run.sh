#!/usr/bin/env bash
# Train each method with three seeds, then write table.md. From the project's root; about an hour
# on two CPU cores. Finished runs are kept: run it again after a stop.
set -euo pipefail
for seed in 0 1 2; do
  for method in mrl mic; do
    name=captions-$method-$seed
    [ -f "runs/$name/results.json" ] ||
      mic train experiments/captions/$method.yaml seed=$seed name=$name --overwrite
  done
done
python experiments/seeds_table.py captions mrl mic > experiments/captions/table.md
