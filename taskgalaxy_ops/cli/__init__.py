"""The command line: every step of the pipeline, without Airflow. Results go to standard output, progress to stderr.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 3 something is pending (the budget is spent, a
model is out of reach), 130 interrupted. In all cases the answers that were received are kept.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import taskgalaxy_ops
from taskgalaxy_ops.cli import (
    airflow,
    benchmarks,
    coverage,
    finetune,
    judges,
    local,
    look,
    maintain,
    release,
    review,
    run,
    sources,
    taxonomy,
)
from taskgalaxy_ops.cli.common import PENDING, Command
from taskgalaxy_ops.errors import PendingError, TaskGalaxyError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. arguments: without the program's name; None: ``sys.argv``."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    command: Command = chosen.command
    try:
        return command(chosen)
    except TaskGalaxyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return PENDING if isinstance(error, PendingError) else 1
    except KeyboardInterrupt:
        print("Interrupted. What was answered is kept: run the same command again to go on.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # such as `taskgalaxy taxonomy tree | head`
        sys.stderr.close()
        return 0
    except sqlite3.OperationalError as error:  # a temporary database that had no room to grow
        print(f"{error}. Free space where temporary files lie, or name a folder with room by TMPDIR.", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"{error.filename}: {error.strerror}. Name another place.", file=sys.stderr)
        return 1


class _Version(argparse.Action):
    """Prints the version and ends; only then it is asked for, since in a checkout that takes a process."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(taskgalaxy_ops.__version__)
        parser.exit()


def _common(default: Any = None) -> argparse.ArgumentParser:
    """The options that all commands share. default: of actions whose command has these options too: it stands then."""
    common = argparse.ArgumentParser(add_help=False, argument_default=default)
    path = Path("taskgalaxy.yaml") if default is None else default
    common.add_argument("--settings", type=Path, default=path, help="default: taskgalaxy.yaml")
    common.add_argument("--store", help="instead of the settings' store: s3://bucket/prefix or file:///folder")
    off = False if default is None else default
    common.add_argument("--json", action="store_true", default=off, help="one JSON object on standard output")
    common.add_argument("--quiet", action="store_true", default=off, help="no progress")
    return common


def _parser() -> argparse.ArgumentParser:
    common, again = _common(), _common(argparse.SUPPRESS)
    parser = argparse.ArgumentParser(
        prog="taskgalaxy",
        description="Turns images into vision-language instruction data with tens of thousands of task types.",
        epilog="Start with `taskgalaxy settings > taskgalaxy.yaml`, then `taskgalaxy pilot --limit 50`.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version; in a checkout with its commit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Command, about: str, group: Any = None, shared: bool | Literal["again"] = True
    ) -> argparse.ArgumentParser:
        parents = [again if shared == "again" else common] if shared else []
        sub: argparse.ArgumentParser = (group or commands).add_parser(
            name, help=about, description=about, parents=parents
        )
        sub.set_defaults(command=command)
        return sub

    run.add_sources(add)
    sources.add(add)
    taxonomy.add(add, commands)
    run.add_stages(add)
    release.add(add)
    benchmarks.add(add, commands)
    finetune.add(add)
    run.add_pilot(add)
    look.add(add)
    coverage.add(add)
    judges.add(add)
    review.add(add, commands)
    maintain.add(add, commands)
    run.add_doctor(add)
    airflow.add(add, commands)
    local.add(add)
    return parser
