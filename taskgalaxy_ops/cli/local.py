"""Commands that run something on this machine: simulate, demo, up, down."""

from __future__ import annotations

import argparse
from pathlib import Path

from taskgalaxy_ops.cli.common import AddCommand, Command


def add(add_command: AddCommand) -> None:
    """Add the parsers of simulate, demo, up and down. A command imports its module when it runs, not before."""

    sub = add_command("simulate", _simulate, "serve the simulated models, OpenAI-compatible, on loopback", shared=False)
    sub.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    sub.add_argument("--port", type=int, default=8009, help="default: %(default)s")
    sub.add_argument("--stats", type=Path, help="a file that keeps the counts of /stats over restarts")
    sub.add_argument("--readings", type=Path, help="a folder that keeps what was read in images over restarts")
    sub.add_argument("--config", type=Path, help="YAML: seed, wrong_share, judges, latency, faults, limits, batches")
    set_help = "a field over it, such as latency=0.2, limits.concurrency=16 or faults.malformed=0.05; repeatable"
    sub.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=set_help)
    sub.add_argument("--canned", action="store_true", help="replies drawn by hash at the highest rate: for benchmarks")
    for name, about in (
        ("demo", "run the whole pipeline on built-in images with simulated models (what `make demo` calls)"),
        ("up", "start SeaweedFS, the simulated models and Airflow, and leave them running"),
        ("down", "stop what `up` started"),
    ):
        sub = add_command(name, _LOCAL[name], about, shared=False)
        sub.add_argument("--folder", type=Path, default=Path("build") / ("demo" if name == "demo" else "up"))
        if name == "demo":
            sub.add_argument("--source", help="a folder of your own images")
            sub.add_argument("--settings", help="a settings file: your own teacher and judges, or other fields alone")
            sub.add_argument(
                "--without-airflow", action="store_true", help="the library alone, in this process: quicker"
            )
            sub.add_argument("--without-finetune", action="store_true", help="end with the release")


def _demo(chosen: argparse.Namespace) -> int:
    from taskgalaxy_ops.demo.run import demo

    return demo(chosen)


def _up(chosen: argparse.Namespace) -> int:
    from taskgalaxy_ops.demo import up

    return up(chosen)


def _down(chosen: argparse.Namespace) -> int:
    from taskgalaxy_ops.demo import down

    return down(chosen)


_LOCAL: dict[str, Command] = {"demo": _demo, "up": _up, "down": _down}


def _simulate(chosen: argparse.Namespace) -> int:
    from taskgalaxy_ops.simulator.config import load_config
    from taskgalaxy_ops.simulator.serve import serve

    config = load_config(chosen.config, chosen.set)
    serve(
        config,
        chosen.host,
        chosen.port,
        chosen.stats,
        announce=lambda url: print(f"serving {url}", flush=True),
        canned=chosen.canned,
        readings=chosen.readings,
    )
    return 0
