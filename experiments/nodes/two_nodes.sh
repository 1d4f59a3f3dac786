#!/usr/bin/env bash
# Two machines on one: a torchrun node in each of two network namespaces, with a cable between them,
# train the quickstart for a few steps, and so do two ranks without them; then the two are compared.
#   sudo env "PATH=$PATH" experiments/nodes/two_nodes.sh [key=value ...]
# From the project's root, with .venv active, as root, on Linux with iproute2. What it makes goes.
set -euo pipefail
[ "$(id -u)" -eq 0 ] || { echo "network namespaces need root" >&2; exit 2; }

runs=$(mktemp -d)
spaces=("mic-$$-1" "mic-$$-2")
nodes=()
clean() {
  for pid in $(jobs -pr); do kill "$pid"; done  # torchrun ends its ranks
  wait
  for space in "${spaces[@]}"; do ip netns del "$space" 2>/dev/null || true; done
  rm -r "$runs"
}
trap clean EXIT

train=(train configs/quickstart.yaml "runs=$runs" trainer.max_steps=8 trainer.validate_every=4
  evaluation.validation.pairs.docstrings_validation.limit=200
  evaluation.test.pairs.docstrings_test.limit=200 evaluation.pca_texts=500
  data.validation.docstrings.limit=200 "$@")
export OMP_NUM_THREADS=1

echo "--- one machine, two ranks"
mic "${train[@]}" name=one trainer.devices=2

echo "--- two machines, one rank each"
for space in "${spaces[@]}"; do ip netns add "$space"; done
ip link add cable netns "${spaces[0]}" type veth peer name cable netns "${spaces[1]}"
for node in 1 2; do
  space=${spaces[node - 1]}
  ip -n "$space" address add "10.77.0.$node/24" dev cable
  ip -n "$space" link set lo up
  ip -n "$space" link set cable up
done
for node in 1 2; do
  # this machine's name is no address on the cable: gloo and torchrun are told what they would look
  # up by it, the device to use and who is host of the meeting
  GLOO_SOCKET_IFNAME=cable ip netns exec "${spaces[node - 1]}" torchrun --nnodes 2 \
    --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint 10.77.0.1:29500 \
    --rdzv-conf "is_host=$((2 - node))" --local-addr "10.77.0.$node" \
    --no-python mic "${train[@]}" name=two &
  nodes+=($!)
done
for pid in "${nodes[@]}"; do wait "$pid"; done
for node in 1 2; do
  sent=$(ip netns exec "${spaces[node - 1]}" cat /proc/net/dev | awk '/cable:/ {print $10}')
  echo "node $node sent $sent bytes over the cable"
done

echo "--- compared"
python experiments/nodes/compare.py "$runs/one" "$runs/two"
