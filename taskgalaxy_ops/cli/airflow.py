"""Commands that give an existing Airflow what the DAGs need."""

from __future__ import annotations

import argparse
import os
from typing import Any

from taskgalaxy_ops.cli.common import AddCommand, loaded, say
from taskgalaxy_ops.operations.airflow import provision
from taskgalaxy_ops.operations.airflow.client import AirflowClient


def add(add_command: AddCommand, commands: Any) -> None:
    """Add `airflow provision`."""
    airflow = commands.add_parser("airflow", help="give an Airflow what the DAGs need: connections and pools")
    group = airflow.add_subparsers(required=True, metavar="ACTION")
    sub = add_command(
        "provision", _provision, "make its connections and pools those of the settings; keys from here", group
    )
    sub.epilog = "The password is read from AIRFLOW_PASSWORD, keys from AWS's variables and each model's api_key_env."
    sub.add_argument(
        "--url", default=os.environ.get("AIRFLOW_URL", "http://localhost:8080"), help="default: %(default)s"
    )
    sub.add_argument("--user", default=os.environ.get("AIRFLOW_USER", "admin"), help="default: %(default)s")
    sub.add_argument("--dry-run", action="store_true", help="only print what would be set; needs no Airflow")


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
