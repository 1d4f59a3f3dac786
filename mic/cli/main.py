"""The program `mic`: parse the command line, run the command, return its exit code.

Exit codes: 0 done, 1 failed, 2 bad input, 143 asked to stop with the state saved.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from mic import __version__
from mic.cli.advise import add_advise
from mic.cli.dashboard import add_dashboard
from mic.cli.data import add_data
from mic.cli.encode import add_encode
from mic.cli.evaluate import add_compare, add_evaluate
from mic.cli.export import add_export
from mic.cli.report import add_report
from mic.cli.sweep import add_sweep
from mic.cli.sync import add_sync
from mic.cli.train import add_resume, add_train
from mic.distributed.environment import in_slurm
from mic.distributed.failures import BAD_INPUT, STOPPED, report_failure
from mic.errors import InputError, Preempted, RunError

COMMANDS = (  # in the order of `mic --help`
    *(add_train, add_resume, add_data, add_encode, add_export, add_report),
    *(add_evaluate, add_compare, add_advise, add_sweep, add_sync, add_dashboard),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; one line on standard error when it fails."""
    options = parse(arguments)
    try:
        options.run(options)
    except Preempted as error:
        return complain(error, STOPPED)
    except InputError as error:
        return complain(error, BAD_INPUT)
    except RunError as error:
        return complain(error, 1)
    except BrokenPipeError:  # as of `mic encode ... | head`
        sys.stderr.close()
    except KeyboardInterrupt:
        return complain(RunError("stopped"), 1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        return complain(error, 1)
    except Exception as error:
        if not report_failure(error, 1):  # to the process that started this rank
            raise
        return 1
    return 0


def entry() -> None:
    """Run a command and end the process; a rank that failed does not wait for other ranks."""
    code = main()
    if code and ("RANK" in os.environ or in_slurm()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; key=value overrides may also follow an --option."""
    top = build_parser()
    options, rest = top.parse_known_args(arguments)
    if any(text.startswith("-") for text in rest) or (rest and "overrides" not in options):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def complain(error: Exception, code: int) -> int:
    """Print an error, unless another rank or the process that started this one prints it."""
    reported = getattr(error, "reported", False)
    if code == STOPPED:
        if not reported:
            print(f"mic: {error}", file=sys.stderr)
    elif not report_failure(error, code) and not reported:
        print(f"mic: error: {error}", file=sys.stderr)
    return code


def build_parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mic", description="Text embeddings whose every prefix is a good embedding."
    )
    top.add_argument("--version", action="version", version=f"mic {__version__}")
    actions = top.add_subparsers(required=True, metavar="COMMAND")
    for add_command in COMMANDS:
        add_command(actions)
    return top


if __name__ == "__main__":
    entry()
