"""Commands that give an existing Airflow what the DAGs need."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, loaded, say
from taskgalaxy_ops.operations.airflow import dag_files, provision
from taskgalaxy_ops.operations.airflow.client import AirflowClient


def add(add_command: AddCommand, commands: Any) -> None:
    """Add `airflow dags` and `airflow provision`."""
    airflow = commands.add_parser("airflow", help="give an Airflow the DAGs, and the connections and pools they need")
    group = airflow.add_subparsers(required=True, metavar="ACTION")
    sub = add_command("dags", _dags, "copy the DAG files into a folder that an Airflow reads", group, shared=False)
    sub.epilog = (
        "The plugin needs no copy where taskgalaxy-ops is installed: Airflow finds it by its entry point. After an "
        "upgrade run this again: copies that nobody changed are replaced."
    )
    sub.add_argument(
        "folder", type=Path, metavar="DIR", help="the DAGs folder (the root of a DAG bundle); made if it is missing"
    )
    sub.add_argument("--link", action="store_true", help="symbolic links to the installed files instead of copies")
    sub.add_argument("--force", action="store_true", help="overwrite files that differ and are no unchanged copies")
    sub.add_argument("--json", action="store_true", help="one JSON object on standard output")
    sub = add_command(
        "provision", _provision, "make its connections and pools those of the settings; keys from here", group
    )
    sub.epilog = "The password is read from AIRFLOW_PASSWORD, keys from AWS's variables and each model's api_key_env."
    sub.add_argument(
        "--url", default=os.environ.get("AIRFLOW_URL", "http://localhost:8080"), help="default: %(default)s"
    )
    sub.add_argument("--user", default=os.environ.get("AIRFLOW_USER", "admin"), help="default: %(default)s")
    sub.add_argument("--dry-run", action="store_true", help="only print what would be set; needs no Airflow")


def _dags(chosen: argparse.Namespace) -> int:
    folder = chosen.folder.absolute()
    placed = dag_files.place_dags(folder, link=chosen.link, force=chosen.force)
    lines = [f"{each.done} {folder / each.name}" for each in placed]
    say(chosen, {"folder": str(folder), "files": {each.name: each.done for each in placed}}, lines)
    return 0


def _provision(chosen: argparse.Namespace) -> int:
    settings = loaded(chosen)
    if chosen.dry_run:
        done = [f"pool {pool.name}: {pool.slots} slots" for pool in provision.pools(settings)]
        for each in provision.connections(settings):
            key = "with" if each.password else "without"
            done.append(f"connection {each.connection_id}: {each.host or 'no host'}, {key} a key")
    else:
        password = os.environ.get("AIRFLOW_PASSWORD", "")
        done = provision.apply(AirflowClient(chosen.url, chosen.user, password), settings)
    say(chosen, {"done": done}, done)
    return 0
