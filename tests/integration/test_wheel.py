"""The wheel, installed outside the checkout: the command line, a small pipeline, the DAGs and the plugin.

The wheel is made from the tracked files alone, and goes into a fresh virtual environment. That sees the packages of the
suite's environment behind its own, but not what the suite has installed of TaskGalaxy itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from taskgalaxy_ops import RELEASED_VERSION
from taskgalaxy_ops.demo.airflow_stack import ROOT, dag_ids
from taskgalaxy_ops.demo.services import LOOPBACK, Service

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only git knows which files belong to the tree"),
]
needs_airflow = pytest.mark.skipif(find_spec("airflow") is None, reason="Airflow is not installed")


def tracked() -> list[str]:
    """The tracked files that are there, by their paths below the root."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tracked files as they are now."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    # No index: whatever the build needs is installed, or the test fails.
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(tree))
    (found,) = out.iterdir()
    return found


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    # Outside the checkout, whose own metadata pip would take for the installed package.
    done = subprocess.run(command, cwd=os.sep, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def environment(**more: str) -> dict[str, str]:
    """That of a process which does not find the checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return {name: value for name, value in kept.items() if not name.startswith("AIRFLOW")} | more


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, and a folder of its own to work in."""

    venv: Path
    folder: Path

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment's bin folder."""
        words = [str(self.venv / "bin" / command[0]), *command[1:]]
        return subprocess.run(words, cwd=self.folder, env=environment(**more), capture_output=True, text=True)

    def said(self, *command: str, **more: str) -> str:
        """The standard output of a command that must succeed."""
        done = self.run(*command, **more)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a fresh virtual environment that sees the suite's packages behind its own."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip("--python", str(venv / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    # The suite's packages one by one: without its .pth files and without the metadata of an editable TaskGalaxy, whose
    # entry points Airflow would load beside the wheel's.
    suite = tmp_path_factory.mktemp("suite")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "taskgalaxy" not in entry.name and entry.suffix != ".pth":
            (suite / entry.name).symlink_to(entry)
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (venv / "lib" / python / "site-packages" / "suite.pth").write_text(f"{suite}\n", "utf-8")
    return Installed(venv, tmp_path_factory.mktemp("elsewhere"))


class InstalledSimulator(Service):
    """``taskgalaxy simulate`` of the wheel, in its own environment."""

    name = "installed-simulator"
    port_names = ("http",)

    def __init__(self, folder: Path, installed: Installed) -> None:
        super().__init__(folder)
        self._installed = installed

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['http']}"

    def command(self) -> list[str]:
        program = str(self._installed.venv / "bin" / "taskgalaxy")
        return ["env", "-u", "PYTHONPATH", program, "simulate", "--port", str(self.ports["http"])]

    def healthy(self) -> bool:
        import urllib.request

        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def simulator(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledSimulator]:
    server = InstalledSimulator(tmp_path_factory.mktemp("simulator"), installed)
    try:
        yield server.start()
    finally:
        server.stop(grace=0)


def test_the_wheel_holds_the_library_the_dags_and_the_plugin_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if not name.endswith("/")}
    information = f"taskgalaxy_ops-{RELEASED_VERSION}.dist-info"
    expected = {name for name in tracked() if name.startswith("taskgalaxy_ops/")}
    expected |= {f"taskgalaxy_ops/_dags/{Path(name).name}" for name in tracked() if name.startswith("dags/")}
    expected |= {name.removeprefix("plugins/") for name in tracked() if name.startswith("plugins/")}
    assert {name for name in held if not name.startswith(information)} == expected - {".airflowignore"}
    assert f"{information}/licenses/LICENSE" in held


def test_the_checkout_is_not_what_runs(installed: Installed) -> None:
    code = (
        "import taskgalaxy_ops, galaxy_airflow, sys; print(taskgalaxy_ops.__file__, galaxy_airflow.__file__, *sys.path)"
    )
    for path in installed.said("python", "-c", code).split():
        assert not Path(path).is_relative_to(ROOT) or "site-packages" in path, path
    assert str(installed.venv) in installed.said("python", "-c", code).split()[0]


def test_the_version_is_the_released_one(installed: Installed) -> None:
    assert installed.said("taskgalaxy", "--version").strip() == RELEASED_VERSION
    code = "import importlib.metadata as m, taskgalaxy_ops as t; print(m.version('taskgalaxy-ops'), t.__version__)"
    assert installed.said("python", "-c", code).split() == [RELEASED_VERSION, RELEASED_VERSION]


def test_a_commit_of_somebody_elses_is_not_ours(installed: Installed) -> None:
    """A virtual environment may lie in the checkout of another project."""
    shutil.copytree(ROOT / "dags", installed.venv.parent / "mine")
    for command in (
        ["init", "-q"],
        ["add", "mine"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "1"],
    ):
        subprocess.run(["git", *command], cwd=installed.venv.parent, check=True, capture_output=True)
    assert installed.said("taskgalaxy", "--version").strip() == RELEASED_VERSION


def test_a_small_pipeline_runs(installed: Installed, simulator: InstalledSimulator) -> None:
    raw = yaml.safe_load(installed.said("taskgalaxy", "settings"))

    def model(name: str) -> dict[str, object]:
        return {"name": name, "base_url": f"{simulator.url}/v1", "model": name, "simulated": True}

    raw |= {
        "store": (installed.folder / "galaxy").as_uri(),
        "sources": {"shapes": {"location": "builtin:shapes", "limit": 3}},
        "match": {"k": 6},
        "teacher": model("sim-teacher"),
        "judges": [model(f"sim-judge-{letter}") for letter in "abc"],
    }
    (installed.folder / "taskgalaxy.yaml").write_text(yaml.safe_dump(raw), "utf-8")
    for command in (["ingest"], ["generate"], ["release", "--to", "data"]):
        installed.said("taskgalaxy", *command, "--quiet", OPENAI_API_KEY="none")
    release = installed.folder / "data" / "v000001"
    rows = [row for file in (release / "llava").glob("*.json") for row in json.loads(file.read_text("utf-8"))]
    assert rows
    assert all((release / row["image"]).is_file() for row in rows)
    installed.said("taskgalaxy", "report", "--quiet")  # made of the package's page, style and script


PARSED = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
from airflow import plugins_manager
from airflow.sdk import plugins_manager as of_tasks
import galaxy_airflow
bag = BundleDagBag(sys.argv[1], bundle_path=Path(sys.argv[1]), bundle_name="dags")
core, errors = plugins_manager._get_plugins()
sdk, sdk_errors = of_tasks._get_plugins()
timetables = sorted(plugins_manager.get_timetables_plugins())
print(json.dumps({
    "dags": sorted(bag.dags), "dag errors": bag.import_errors, "errors": errors, "sdk errors": sdk_errors,
    "core": {each.name: str(each.source) for each in core if each.name == "taskgalaxy"},
    "sdk": [each.name for each in sdk].count("taskgalaxy"),
    "timetables": [name for name in timetables if "galaxy" in name],
    "from": galaxy_airflow.__file__,
}))
"""


def parsed(installed: Installed, dags: Path, shard: Path, plugins: Path) -> dict[str, object]:
    """What an Airflow with these folders finds."""
    shard.mkdir(exist_ok=True)
    said = installed.said(
        "python",
        "-c",
        PARSED,
        str(dags),
        AIRFLOW_HOME=str(shard),
        AIRFLOW__CORE__DAGS_FOLDER=str(dags),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(plugins),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__HOSTNAME_CALLABLE="socket.gethostname",
        AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
    )
    found: dict[str, object] = json.loads(said.splitlines()[-1])
    return found


@needs_airflow
def test_an_airflow_parses_the_dags_and_finds_the_plugin(installed: Installed) -> None:
    dags = installed.folder / "copied dags"
    told = installed.said("taskgalaxy", "airflow", "dags", str(dags))
    assert set(told.splitlines()) == {f"copied {file}" for file in dags.iterdir()}
    found = parsed(installed, dags, installed.folder / "airflow", installed.folder / "no plugins")
    assert (found["dag errors"], found["errors"], found["sdk errors"]) == ({}, {}, {})
    assert found["dags"] == dag_ids()
    assert len(dag_ids()) == 9
    entry = f"taskgalaxy-ops=={RELEASED_VERSION}: EntryPoint(name='taskgalaxy'"
    assert str(found["core"]).startswith(f"{{'taskgalaxy': \"{entry}"), found["core"]
    assert found["sdk"] == 1
    assert len(found["timetables"]) == 5  # type: ignore[arg-type]
    assert str(found["from"]).startswith(str(installed.venv))


@needs_airflow
def test_a_mounted_plugins_folder_registers_the_plugin_once(installed: Installed) -> None:
    dags = installed.folder / "linked dags"
    installed.said("taskgalaxy", "airflow", "dags", str(dags), "--link")
    assert {file.resolve().parent.name for file in dags.iterdir()} == {"_dags"}
    mounted = installed.folder / "mounted" / "plugins"
    shutil.copytree(ROOT / "plugins", mounted, ignore=shutil.ignore_patterns("__pycache__"))
    found = parsed(installed, dags, installed.folder / "airflow mounted", mounted)
    assert (found["dag errors"], found["errors"], found["sdk errors"]) == ({}, {}, {})
    assert found["dags"] == dag_ids()
    assert found["core"] == {"taskgalaxy": "$PLUGINS_FOLDER/galaxy_plugin.py"}
    assert found["sdk"] == 1
