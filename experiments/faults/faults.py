"""Put faults into a copy of the code, one after the other, and show that the tests catch each.

    python experiments/faults/faults.py [--only WORD] [--jobs 2] [--to experiments/faults/record.md]

A fault is a line as somebody could have written it by mistake. It has to stand exactly once in its
file, or the command says so and stops. Slow tests are left out, and every group of tests is run
without a fault first.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Fault(NamedTuple):
    """What is wrong, the file, the line as it is and as it is not, and the tests that must fail."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str


FAULTS = [
    # losses
    Fault(
        "InfoNCE multiplies by the temperature",
        "mic/losses/contrastive.py",
        "scores = cosines(queries, keys, dims, scale=1 / temperature)",
        "scores = cosines(queries, keys, dims, scale=temperature)",
        "tests/losses/test_losses.py",
    ),
    Fault(
        "symmetric InfoNCE is a sum, not a mean",
        "mic/losses/contrastive.py",
        "positives, dims, temperature, back)) / 2",
        "positives, dims, temperature, back))",
        "tests/losses/test_false_negatives.py",
    ),
    Fault(
        "an excluded positive is left out as well",
        "mic/losses/contrastive.py",
        "[mask.scatter(1, positives[:, None], False) for mask in excluded]",
        "[mask for mask in excluded]",
        "tests/losses/test_false_negatives.py",
    ),
    Fault(
        "SCR sees positive correlations alone",
        "mic/losses/soft_collapse.py",
        "functional.softshrink(correlation, threshold).square()",
        "(correlation - threshold).relu().square()",
        "tests/losses/test_losses.py",
    ),
    Fault(
        "SCR's residual hinge weighs as much as the prefix's",
        "mic/losses/soft_collapse.py",
        "+ variance_hinge(residual(deviations, dim), variance_floor) / 2",
        "+ variance_hinge(residual(deviations, dim), variance_floor)",
        "tests/losses/test_losses.py",
    ),
    Fault(
        "SCR's gradient by the deviations has the wrong sign",
        "mic/losses/soft_collapse.py",
        "along = to_deviations - (gradient * rows).sum(1) / deviations",
        "along = to_deviations + (gradient * rows).sum(1) / deviations",
        "tests/losses/test_losses.py",
    ),
    Fault(
        "padding counts in SCR's means",
        "mic/losses/soft_collapse.py",
        "standardised *= valid",
        "standardised *= 1",
        "tests/losses/test_losses.py",
    ),
    Fault(
        "uniformity's mean counts a row with itself",
        "mic/losses/spectral_isotropy.py",
        "torch.log(sums / (count * (count - 1)) + DIVISION_FLOOR)",
        "torch.log(sums / (count * count) + DIVISION_FLOOR)",
        "tests/losses/test_losses.py",
    ),
    Fault(
        "the eigenvalues' floor is left out",
        "mic/losses/spectral_isotropy.py",
        "trace.square().clamp_min(TINY) - 1 - expected",
        "trace.square().clamp_min(TINY) - 1",
        "tests/losses/test_losses.py",
    ),
    Fault(
        "the teacher's neighbourhoods get a gradient",
        "mic/losses/distillation.py",
        "        with torch.no_grad():\n            wanted = unit(teacher_rows)",
        "        with torch.enable_grad():\n            wanted = unit(teacher_rows)",
        "tests/losses/test_distillation.py",
    ),
    Fault(
        "VICReg's covariance is that of the population",
        "mic/losses/vicreg.py",
        "covariance = centred.T @ centred / (len(pooled) - 1)",
        "covariance = centred.T @ centred / len(pooled)",
        "tests/losses/test_baseline_losses.py",
    ),
    Fault(
        "cosines are cut after they were normalised",
        "mic/nested.py",
        "norms = zip(prefix_norms(a, dims), prefix_norms(b, dims), strict=True)\n"
        "    products: Tensor",
        "norms = zip([prefix_norms(a, dims)[-1]] * len(dims), prefix_norms(b, dims), strict=True)\n"
        "    products: Tensor",
        "tests/test_nested.py",
    ),
    # ranks
    Fault(
        "a gather hands each rank its own gradient alone",
        "mic/collectives.py",
        "        distributed.all_reduce(gradient)\n"
        "        return torch.split(gradient, list(ctx.sizes))[rank()], None",
        "        return torch.split(gradient, list(ctx.sizes))[rank()], None",
        "tests/objective/test_ranks.py",
    ),
    Fault(
        "a total's gradient is not added up",
        "mic/collectives.py",
        "        gradient = gradient.contiguous().clone()\n"
        "        distributed.all_reduce(gradient)\n"
        "        return gradient\n",
        "        return gradient\n",
        "tests/objective/test_ranks.py",
    ),
    Fault(
        "every rank takes its rows for the first of the batch",
        "mic/objective/objective.py",
        "first = sum(sizes[: rank()])",
        "first = 0",
        "tests/objective/test_ranks.py",
    ),
    # objective
    Fault(
        "chunks draw dropout anew in the second pass",
        "mic/objective/gradcache.py",
        "        with replayed(state):\n            again",
        "        if state:\n            again",
        "tests/objective/test_gradcache.py",
    ),
    Fault(
        "gamma weighs the regularizers' sum, not their mean over widths",
        "mic/objective/objective.py",
        "shares = dict.fromkeys(widths, config.gamma / nesting)",
        "shares = dict.fromkeys(widths, config.gamma)",
        "tests/objective/test_objective.py tests/objective/test_terms.py",
    ),
    Fault(
        "a warm-up begins one step late",
        "mic/objective/objective.py",
        "return term.weight * (step + 1) / term.warmup_steps",
        "return term.weight * step / term.warmup_steps",
        "mic/objective/objective.py",
    ),
    # metrics
    Fault(
        "discounts of nDCG begin at log2(1)",
        "mic/metrics/retrieval.py",
        "discounts = 1 / torch.log2(1 + ranks[:10])",
        "discounts = 1 / torch.log2(2 + ranks[:10])",
        "tests/metrics/test_metrics.py",
    ),
    Fault(
        "documents of equal score stand in the order of their shards",
        "mic/metrics/retrieval.py",
        "numbers, order = best[1].sort(dim=1)",
        "numbers, order = best[1].sort(dim=1, descending=True)",
        "tests/metrics/test_metrics.py",
    ),
    Fault(
        "equal values of a draw do not share the mean of their ranks",
        "mic/metrics/bootstrap.py",
        "middles = drawn.cumsum(1) - (drawn - 1) / 2",
        "middles = drawn.cumsum(1)",
        "tests/metrics/test_bootstrap.py",
    ),
    # order of batches
    Fault(
        "every epoch has the same order",
        "mic/data/order/batch_order.py",
        "derive_key(self.seed, epoch, number), self.window",
        "derive_key(self.seed, number), self.window",
        "tests/data/order",
    ),
    Fault(
        "a rank's slice depends on no other rank",
        "mic/data/order/batch_order.py",
        "slice(self.rank, None, self.ranks)",
        "slice(0, None, self.ranks)",
        "tests/data/order",
    ),
    Fault(
        "a resumed epoch begins at its first batch",
        "mic/data/order/batch_order.py",
        "for position in range(start, self.order.length(epoch)):",
        "for position in range(0, self.order.length(epoch)):",
        "tests/data/order",
    ),
    # exact resume
    Fault(
        "the random state of the moment is not restored",
        "mic/train/resume/exact_resume.py",
        "        if self._now is not None:\n"
        "            restore_random_state(self._now, trainer.strategy.root_device)\n"
        '        if self._loaded["place"]',
        '        if self._loaded["place"]',
        "tests/train/resume/test_resume.py",
    ),
    Fault(
        "the next batch is counted from those that were completed",
        "mic/data/order/position.py",
        "batches, epoch = progress.total.processed, 0",
        "batches, epoch = progress.total.completed, 0",
        "tests/train/resume/test_resume.py",
    ),
    Fault(
        "numpy's generator is not restored",
        "mic/train/resume/random_state.py",
        '    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *others))\n',
        "",
        "tests/train/resume",
    ),
    Fault(
        "a damaged checkpoint is taken",
        "mic/train/resume/checkpoint_files.py",
        ".startswith(",
        ".islower() or str.startswith('',",
        "tests/train/resume/test_checkpoint_files.py",
    ),
    Fault(
        "validation leaves its trace in the random state",
        "mic/train/resume/exact_resume.py",
        "        if self._now is not None:\n"
        "            restore_random_state(self._now, trainer.strategy.root_device)\n"
        "        if not trainer.fit_loop._should_accumulate():",
        "        if not trainer.fit_loop._should_accumulate():",
        "tests/train/resume",
    ),
    # encoder
    Fault(
        "a prompt is as long as its tokens and the mark at a text's end",
        "mic/encoder/tokenizer.py",
        "return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)",
        "return len(ids)",
        "tests/encoder/test_layouts.py",
    ),
    Fault(
        "RoBERTa's positions all hold a token",
        "mic/encoder/encoder.py",
        "positions.num_embeddings - first - 1",
        "positions.num_embeddings",
        "tests/encoder/test_layouts.py",
    ),
    Fault(
        "static embeddings begin one token late",
        "mic/encoder/encoder.py",
        "counts.cumsum(0) - counts",
        "counts.cumsum(0)",
        "tests/encoder/test_layouts.py",
    ),
    Fault(
        "vectors are normalised before they are cut",
        "mic/encoder/encoder.py",
        "unit(prefix(embeddings, dim))",
        "prefix(unit(embeddings), dim)",
        "tests/encoder/test_encoder.py",
    ),
    # export
    Fault(
        "a narrow export takes the last rows of the head",
        "mic/export/folder.py",
        ".weight[:dim])",
        ".weight[-dim:])",
        "tests/export/test_export.py",
    ),
    Fault(
        "an export does not normalise",
        "mic/export/folder.py",
        "enumerate([*modules, Normalize()])",
        "enumerate(modules)",
        "tests/export/test_export.py",
    ),
    Fault(
        "an export is compared with nothing",
        "mic/export/parity.py",
        "if not largest[worst] <= LARGEST[dtype]:",
        "if largest[worst] < 0:",
        "tests/export/test_export.py",
    ),
    # config
    Fault(
        "a base overrides the file that names it",
        "mic/config/loading.py",
        "    yield path, OmegaConf.create(plain)",
        "    if not bases:\n        yield path, OmegaConf.create(plain)",
        "tests/config/test_loading.py",
    ),
    Fault(
        "a missing value is not asked for",
        "mic/config/loading.py",
        "        if missing:\n            raise InputError(f",
        "        if len(missing) > 99:\n            raise InputError(f",
        "tests/config/test_loading.py",
    ),
    Fault(
        "biases decay",
        "mic/train/optimizer.py",
        '            "weight_decay": 0,',
        '            "weight_decay": trainer.weight_decay,',
        "tests/train/test_module.py",
    ),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", metavar="WORD", help="faults of files that have it")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the code at a time")
    parser.add_argument("--to", type=Path, metavar="FILE", help="write the table there as well")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in fault.file]
    for fault in faults:
        count = (ROOT / fault.file).read_text().count(fault.right)
        if count != 1:
            sys.exit(f"{fault.name}: stands {count} times in {fault.file}; mend the fault")
    groups = list(dict.fromkeys(fault.tests for fault in faults))
    with ThreadPoolExecutor(options.jobs) as pool:
        for tests, (code, seconds, text) in zip(groups, pool.map(run_clean, groups), strict=True):
            print(f"without a fault: {tests}: {text} ({seconds:.0f} s)", flush=True)
            if code != 0:
                sys.exit(f"{tests}: fails without any fault")
        rows = ["| fault | file | tests | what they said | s |", "| --- | --- | --- | --- | ---: |"]
        missed = 0
        for fault, (code, seconds, text) in zip(faults, pool.map(run_with, faults), strict=True):
            missed += code != 1
            said = text if code == 1 else f"NOT CAUGHT: {text}"
            cells = [fault.name, f"`{fault.file}`", f"`{fault.tests}`", said, f"{seconds:.0f}"]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
            print(rows[-1], flush=True)
    if options.to:
        total = f"{len(faults) - missed} of {len(faults)} faults caught.\n\n"
        options.to.write_text(total + "\n".join(rows) + "\n")
    print(f"{len(faults) - missed} of {len(faults)} caught")
    return 1 if missed else 0


def run_clean(tests: str) -> tuple[int, float, str]:
    return run(tests, None)


def run_with(fault: Fault) -> tuple[int, float, str]:
    return run(fault.tests, fault)


def run(tests: str, fault: Fault | None) -> tuple[int, float, str]:
    """Pytest's exit code, seconds and last line in a copy of the code, with or without a fault."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in listed.stdout.splitlines():
            if name.startswith(("mic/", "tests/", "configs/")) or name in ("pyproject.toml",):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
        if fault is not None:
            file = copy / fault.file
            file.write_text(file.read_text().replace(fault.right, fault.wrong))
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow"]
        command += ["-p", "no:cacheprovider"]
        start = time.monotonic()
        result = subprocess.run(
            [*command, *tests.split()], cwd=copy, env=environment, capture_output=True, text=True
        )
    lines = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    last = (lines or result.stdout.splitlines() or [result.stderr[-200:]])[-1]
    name = last.split(" - ")[0].removeprefix("FAILED ").rpartition("/")[2]
    return result.returncode, time.monotonic() - start, name[:120]


if __name__ == "__main__":
    sys.exit(main())
