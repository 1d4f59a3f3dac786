"""Write a batch script for SLURM: an array job whose tasks are workers of one sweep.

It works as experiments/slurm/train.sbatch does; the README beside that one gives the reasons.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from mic.errors import InputError
from mic.files import write_text
from mic.sweep.sweep_file import Sweep

SCRIPT = "sweep.sbatch"
CORES = 8  # for each process of a trial

TEXT = r"""#!/bin/bash
# sbatch {script}
#
# Each task of this array job is one worker of a sweep: `{worker}`.
# Options of sbatch replace those of this head: account, partition and time are yours to add.
# More workers, now or later: submit it again, with --array=1-8 for eight.
#SBATCH --job-name={name}
#SBATCH --array=1-{workers}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-task={devices}
#SBATCH --cpus-per-task={cores}
#SBATCH --time=12:00:00
#
# This shell gets SIGUSR1 two minutes before the limit; a requeued task appends to its log.
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={log}
#
# Workers share a journal in the sweep's folder, or the database that MIC_STORAGE names where
# sbatch is called. Its URL may hold a password, and so is not written here.

# SLURM signals this shell and not its child. The child gets SIGTERM in either case: while it is
# still starting it dies of it, with the same 143 as after saving its trial.
ending=no
heard=no
pass_on() {{
    heard=yes
    kill -TERM $! 2>/dev/null
}}
trap 'ending=yes; pass_on' TERM
trap pass_on USR1

cd "${{SLURM_SUBMIT_DIR:-.}}" || exit
if [ -n "$SLURM_CPUS_PER_TASK" ]; then
    threads=$(((SLURM_CPUS_PER_TASK + {devices} - 1) / {devices}))  # of each process of a trial
    export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-$threads}}
fi
task=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
echo "job $task, start $((${{SLURM_RESTART_COUNT:-0}} + 1)), on $SLURM_JOB_NODELIST"

{worker} &
[ $heard = no ] || pass_on  # before there was a child
# Not `wait` alone: a signal ends it, and now and then bash (5.2) then loses the child's exit code.
while kill -0 $! 2>/dev/null; do
    sleep 1
done
trap '' TERM USR1
wait $!
code=$?

# 143: the worker was asked to stop, and its trial is saved and back in the sweep's queue. If this
# shell got SIGTERM as well, SLURM is ending the job: it requeues a preempted one itself, and a
# cancelled one is to stay so. By the task's number: the last task of an array has the array's own
# SLURM_JOB_ID, by which all tasks would be requeued.
if [ $code -eq 143 ] && [ $ending = no ]; then
    echo "job $task: saved; back into the queue"
    scontrol requeue "$task"
fi
exit $code
"""


def write_array_job(sweep: Sweep, workers: int, options: Sequence[str]) -> Path:
    """Write the script of an array job of `workers` workers into the sweep's folder; its path.

    Submit it from the current folder, as all paths start there. Raises InputError for an option
    that may hold a password.
    """
    folder = sweep.folder
    script = folder / SCRIPT
    if any(option.partition("=")[0] == "--storage" for option in options):
        raise InputError(
            f"--storage: a URL may hold a password, which {script} is no place for; "
            "export MIC_STORAGE=URL before you call sbatch"
        )
    words = ["mic", "sweep", str(sweep.file), "--workers", "1", *options]
    devices = sweep.base.trainer.devices
    text = TEXT.format(
        script=shlex.quote(str(script)),
        worker=shlex.join(words),
        name=shlex.quote(sweep.name),
        workers=workers,
        devices=devices,
        cores=CORES * devices,
        log=shlex.quote(f"{str(folder).replace('%', '%%')}/%x-%A_%a.log"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(script, text)
    script.chmod(0o755)
    return script
