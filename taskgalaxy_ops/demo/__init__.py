"""The demo: SeaweedFS, the simulated models and Airflow on loopback, and the whole pipeline on images that ship.

A demo that was killed is gone on with: its servers are stopped first, and nothing that was answered is asked again.
``--without-airflow`` calls the library itself, in this process.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

import yaml

from taskgalaxy_ops.demo.airflow_stack import USER, AirflowStack, dag_ids
from taskgalaxy_ops.demo.services import SeaweedFS, Simulator, stop_left_over
from taskgalaxy_ops.demo.settings import demo_settings
from taskgalaxy_ops.operations.airflow import provision
from taskgalaxy_ops.settings import Settings, load_settings


def up(chosen: argparse.Namespace) -> int:
    """Start the servers and leave them running; print addresses, user and password, and the settings file."""
    folder: Path = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    stop_left_over(folder)
    with ExitStack() as undo:
        seaweed, simulator = SeaweedFS(folder), Simulator(folder)
        for service in (seaweed, simulator):
            undo.callback(service.stop)
            service.start()
        variables = [f"export {name}={value}" for name, value in seaweed.environment.items()]
        os.environ.update(seaweed.environment)
        settings = _up_settings(folder / "taskgalaxy.yaml", simulator.base_url)
        stack = AirflowStack(folder, settings, parse_seconds=30, more={"TASKGALAXY_CACHE": str(folder / "sources")})
        undo.callback(stack.stop)
        start_airflow(stack, load_settings(settings))
        undo.pop_all()
    program = str(Path(sys.executable).parent / "taskgalaxy")
    status, stop = ([program, "status", "--settings", str(settings)], [program, "down", "--folder", str(folder)])
    print(
        f"\nAirflow   {stack.url}\nuser      {USER}\npassword  {stack.password}\n"
        f"settings  {settings}  (yours to change)\nmodels    {simulator.base_url}  (simulated, any key)\n\n"
        "`galaxy_watch` looks at the settings' sources every five minutes; trigger it to begin now, or ingest\n"
        "your own with the form of `galaxy_ingest`. A grown taxonomy waits for your approval.\n"
        "`make down` stops what `make up` started. From a shell:\n\n"
        + "\n".join([*variables, shlex.join(status), f"{shlex.join(stop)}   # stops everything"])
    )
    return 0


def _up_settings(file: Path, base_url: str) -> Path:
    """The settings file of ``up``: made once, since it is the user's; simulated models get today's address."""
    if file.exists():
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    else:
        raw = demo_settings(base_url, {})
        raw["airflow"] = {**raw["airflow"], "schedules": {"watch": "*/5 * * * *"}}
        raw["taxonomy"] = {"approval": "required"}
        # Else it would lie wherever `up` was called.
        raw["finetune"] = {**raw.get("finetune", {}), "folder": str(file.parent / "finetune")}
    former = yaml.safe_dump(raw, sort_keys=False)
    for model in (raw["teacher"], *raw["judges"]):
        if model.get("simulated"):
            model["base_url"] = base_url
    now = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    if now != former or not file.exists():
        file.write_text(now, encoding="utf-8")
    return file


def start_airflow(stack: AirflowStack, settings: Settings) -> None:
    """Start Airflow with what the settings need."""
    stack.start(lambda text: print(text, file=sys.stderr, flush=True))
    provision.apply(stack.client(), settings)
    stack.wait_for_dags(dag_ids())


def down(chosen: argparse.Namespace) -> int:
    """Stop what ``up`` started."""
    print(f"stopped: {', '.join(stop_left_over(chosen.folder)) or 'nothing was running'}")
    return 0
