"""The connections and pools that an Airflow needs to run the pipeline; they are declared only here.

Both follow from the settings. Keys are read from the environment of the process that applies this, and are written only
into connections. Applying it again changes only what differs. The DAGs use no Airflow variables.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.operations.airflow.client import AirflowClient
from taskgalaxy_ops.settings import Model, Settings

STORE_CONNECTION = "galaxy_store"
POOLS: Mapping[str, str] = {
    "galaxy_encoders": "tasks that embed images and task types",
    "galaxy_teacher": "tasks that ask the teacher",
    "galaxy_judges": "tasks that ask the judges",
    "galaxy_store": "tasks that only read and write the store",
}
_NO_CONNECTION_CHARACTER = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSpec:
    """An Airflow connection; ``password`` is left out of its ``repr``."""

    connection_id: str
    description: str
    host: str = ""
    login: str = ""
    password: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """An Airflow pool."""

    name: str
    slots: int
    description: str


def model_connection(model: Model) -> str:
    """The connection that holds a model's key."""
    name = _NO_CONNECTION_CHARACTER.sub("_", model.name)
    mark = "" if name == model.name else f"_{fingerprint('connection', model.name)[:6]}"
    return f"galaxy_model_{name}{mark}"


def connections(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[ConnectionSpec]:
    """The connections of the store (if it is in S3) and of each model, with the keys in ``environment``."""
    specs = []
    if settings.store.startswith("s3://"):
        endpoint = settings.s3.endpoint_url or environment.get("AWS_ENDPOINT_URL_S3") or ""
        region = settings.s3.region or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or ""
        extra = {"endpoint_url": endpoint, "region_name": region}
        specs.append(
            ConnectionSpec(
                connection_id=STORE_CONNECTION,
                description="S3 keys of the store and of sources in S3",
                host=endpoint,
                login=environment.get("AWS_ACCESS_KEY_ID", ""),
                password=environment.get("AWS_SECRET_ACCESS_KEY", ""),
                extra={name: value for name, value in extra.items() if value},
            )
        )
    for model in {model.name: model for model in settings.models}.values():
        if model.weights is not None:
            continue  # a model in this process needs no key
        key = environment.get(model.api_key_env, "")
        about = f"key of model {model.name} (in place of the variable {model.api_key_env})"
        specs.append(
            ConnectionSpec(connection_id=model_connection(model), description=about, host=model.base_url, password=key)
        )
    return specs


def pools(settings: Settings) -> list[PoolSpec]:
    """The pools with the settings' slots."""
    slots = settings.airflow.pools.model_dump()
    return [PoolSpec(name, slots[name.removeprefix("galaxy_")], about) for name, about in POOLS.items()]


def environment_of(settings: Settings, found: Mapping[str, ConnectionSpec]) -> dict[str, str]:
    """The environment variables in which the library looks for keys, from connections; empty values are left out.

    found: by id, the connections that Airflow has. Raises SettingsError where two models share a variable, but their
    connections hold different keys.
    """
    chosen: dict[str, str] = {}
    if (store := found.get(STORE_CONNECTION)) is not None:
        chosen["AWS_ACCESS_KEY_ID"], chosen["AWS_SECRET_ACCESS_KEY"] = store.login, store.password
        chosen["AWS_ENDPOINT_URL_S3"] = str(store.extra.get("endpoint_url", ""))
        chosen["AWS_REGION"] = str(store.extra.get("region_name", ""))
    for model in settings.models:
        spec = found.get(model_connection(model))
        if spec is None or not spec.password:
            continue
        if chosen.setdefault(model.api_key_env, spec.password) != spec.password:
            raise SettingsError(
                f"model {model.name!r}: its connection {spec.connection_id} holds another key than that of a model "
                f"with the same api_key_env ({model.api_key_env}). Give each key an api_key_env of its own."
            )
    return {name: value for name, value in chosen.items() if value}


def apply(client: AirflowClient, settings: Settings, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Create or change an Airflow's pools and connections as the settings say; returns a line for each.

    A key that is not in the environment stays as Airflow has it. Raises AirflowError.
    """
    done = []
    for pool in pools(settings):
        body = {"name": pool.name, "slots": pool.slots, "description": pool.description, "include_deferred": False}
        done.append(f"pool {pool.name}: {client.put('pools', pool.name, body)}")
    for spec in connections(settings, environment):
        body = {"connection_id": spec.connection_id, "conn_type": "generic", "description": spec.description}
        body |= {"host": spec.host or None, "login": spec.login or None}
        if spec.extra:
            body["extra"] = json.dumps(spec.extra, sort_keys=True)
        if spec.password:
            body["password"] = spec.password
        done.append(f"connection {spec.connection_id}: {client.put('connections', spec.connection_id, body)}")
    return done
