"""What an Airflow is given: pools and connections that follow from the settings, and keys nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.operations.airflow.client import AirflowError
from taskgalaxy_ops.operations.airflow.provision import (
    STORE_CONNECTION,
    apply,
    connections,
    environment_of,
    model_connection,
    pools,
)
from taskgalaxy_ops.settings import Settings, parse_settings

KEYS = {
    "AWS_ACCESS_KEY_ID": "access",
    "AWS_SECRET_ACCESS_KEY": "canary-secret",
    "ONE": "canary-one",
    "TWO": "canary-two",
}


def settings(**changes: Any) -> Settings:
    def model(name: str, env: str) -> dict[str, Any]:
        return {"name": name, "base_url": f"http://127.0.0.1/{env}", "model": name, "api_key_env": env}

    raw = {
        "store": "s3://bucket/prefix",
        "s3": {"endpoint_url": "http://127.0.0.1:8333"},
        "teacher": model("teacher", "ONE"),
        "judges": [model("judge one", "ONE"), model("judge/two".replace("/", " & "), "TWO")],
    }
    return parse_settings({**raw, **changes})


class Remembering:
    """Stands for an Airflow: keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: dict[str, dict[str, Any]] = {}

    def put(self, kind: str, name: str, body: dict[str, Any]) -> str:
        self.sent[f"{kind}/{name}"] = body
        return "created"


def test_every_model_and_the_store_have_a_connection() -> None:
    found = {spec.connection_id: spec for spec in connections(settings(), KEYS)}
    assert sorted(found) == sorted({STORE_CONNECTION, *map(model_connection, (settings().teacher, *settings().judges))})
    assert found[STORE_CONNECTION].login == "access"
    assert found[STORE_CONNECTION].extra == {"endpoint_url": "http://127.0.0.1:8333"}
    assert found["galaxy_model_teacher"].password == "canary-one"
    for name in found:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def test_names_that_look_alike_have_connections_of_their_own() -> None:
    one, two = settings().judges[0], settings().judges[0].model_copy(update={"name": "judge_one"})
    assert model_connection(one) != model_connection(two)


def test_what_goes_in_comes_out_as_the_environment_of_a_task() -> None:
    found = {spec.connection_id: spec for spec in connections(settings(), KEYS)}
    assert environment_of(settings(), found) == {**KEYS, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:8333"}
    assert environment_of(settings(), {}) == {}


def test_two_keys_under_one_name_are_refused() -> None:
    found = {spec.connection_id: spec for spec in connections(settings(), KEYS)}
    name = model_connection(settings().judges[0])
    changed = {**found, name: replace(found[name], description="", host="", extra={}, password="another")}
    with pytest.raises(SettingsError, match="an api_key_env of its own"):
        environment_of(settings(), changed)


def test_a_key_is_sent_as_a_password_and_shown_nowhere() -> None:
    airflow = Remembering()
    done = apply(airflow, settings(), KEYS)  # type: ignore[arg-type]
    assert airflow.sent["pools/galaxy_judges"]["slots"] == settings().airflow.pools.judges
    assert airflow.sent["connections/galaxy_store"]["password"] == "canary-secret"
    assert "canary" not in " ".join(done)
    assert "canary" not in repr(connections(settings(), KEYS))
    for name, body in airflow.sent.items():
        assert "canary" not in str({field: value for field, value in body.items() if field != "password"}), name


def test_a_key_that_is_not_here_is_left_as_it_is_there() -> None:
    airflow = Remembering()
    apply(airflow, settings(), {})  # type: ignore[arg-type]
    assert all("password" not in body for body in airflow.sent.values())


def test_a_folder_store_needs_no_connection() -> None:
    assert STORE_CONNECTION not in {spec.connection_id for spec in connections(settings(store="file:///tmp/x"), KEYS)}


def test_a_model_in_process_needs_no_connection() -> None:
    here = {"name": "here", "base_url": "transformers:owner/name", "model": "owner/name"}
    judges = [settings().judges[0].model_dump(mode="json"), here]
    found = {spec.connection_id for spec in connections(settings(judges=judges), KEYS)}
    assert found == {STORE_CONNECTION, *(model_connection(settings().teacher), model_connection(settings().judges[0]))}


def test_pools_have_the_settings_slots() -> None:
    chosen = settings(airflow={"pools": {"encoders": 3, "judges": 5}})
    assert {pool.name: pool.slots for pool in pools(chosen)} == {
        **{"galaxy_encoders": 3, "galaxy_teacher": 16, "galaxy_judges": 5, "galaxy_store": 8}
    }


def test_an_airflow_that_is_not_there_is_named() -> None:
    from taskgalaxy_ops.operations.airflow.client import AirflowClient

    with pytest.raises(AirflowError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        apply(AirflowClient("http://127.0.0.1:9", "admin", "x"), settings(), {})
