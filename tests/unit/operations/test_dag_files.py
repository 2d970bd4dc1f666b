"""The DAG files in an Airflow's folder: placed, replaced where nobody changed them, and nothing else overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from taskgalaxy_ops import cli
from taskgalaxy_ops.demo.airflow_stack import ROOT
from taskgalaxy_ops.operations.airflow import dag_files
from taskgalaxy_ops.operations.airflow.dag_files import DagFilesError, Placed, checkout, dags_folder, place_dags

NAMES = sorted(path.name for path in (ROOT / "dags").glob("*.py"))


@pytest.fixture
def upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Makes the next calls those of a newer package whose doctor DAG is another; gives the folder of its DAGs."""
    package = tmp_path / "newer" / "taskgalaxy_ops"
    (package / "_dags").mkdir(parents=True)
    for name in NAMES:
        more = "# newer\n" if name == "galaxy_doctor.py" else ""
        (package / "_dags" / name).write_text((ROOT / "dags" / name).read_text("utf-8") + more, "utf-8")

    def to_newer() -> Path:
        monkeypatch.setattr(dag_files, "_PACKAGE", package)
        monkeypatch.setattr(dag_files, "RELEASED_VERSION", "0.2.0")
        return package / "_dags"

    return to_newer


def done(placed: list[Placed]) -> dict[str, str]:
    return {each.name: each.done for each in placed}


def test_a_checkout_has_its_own_dags() -> None:
    assert checkout() == ROOT
    assert dags_folder() == ROOT / "dags"
    assert dag_files.plugins_folder() == ROOT / "plugins"


def test_copies_hold_the_dags_and_a_second_call_keeps_them(tmp_path: Path) -> None:
    target = tmp_path / "new" / "dags"
    assert done(place_dags(target)) == dict.fromkeys(NAMES, "copied")
    assert sorted(path.name for path in target.iterdir()) == NAMES
    for name in NAMES:
        own = (ROOT / "dags" / name).read_text("utf-8")
        text = (target / name).read_text("utf-8")
        assert text.startswith(own)
        assert len(text.splitlines()) == len(own.splitlines()) + 1
        compile(text, name, "exec")
    assert done(place_dags(target)) == dict.fromkeys(NAMES, "kept")


def test_copies_that_nobody_changed_are_replaced_by_newer_ones(tmp_path: Path, upgrade: Callable[[], Path]) -> None:
    place_dags(tmp_path / "dags")
    upgrade()
    place_dags(tmp_path / "dags")
    text = (tmp_path / "dags" / "galaxy_doctor.py").read_text("utf-8")
    assert text.splitlines()[-2] == "# newer"
    assert "taskgalaxy-ops 0.2.0:" in text.splitlines()[-1]


@pytest.mark.parametrize("change", ["end", "middle", "other"])
def test_a_changed_copy_and_a_file_of_somebody_elses_are_kept(
    tmp_path: Path, upgrade: Callable[[], Path], change: str
) -> None:
    target = tmp_path / "dags"
    place_dags(target)
    file = target / "galaxy_doctor.py"
    text = file.read_text("utf-8")
    changed = {"end": text + "x = 1\n", "middle": text.replace("import", "import ", 1), "other": "# mine\n"}[change]
    file.write_text(changed, "utf-8")
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    upgrade()
    for link in (False, True):
        with pytest.raises(DagFilesError, match=r"galaxy_doctor\.py would be overwritten.*--force"):
            place_dags(target, link=link)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before, "all or nothing"
    assert done(place_dags(target, force=True)) == dict.fromkeys(NAMES, "copied")
    assert "# newer" in file.read_text("utf-8")


def test_a_plain_copy_of_the_same_file_is_ours(tmp_path: Path) -> None:
    (tmp_path / "galaxy_doctor.py").write_bytes((ROOT / "dags" / "galaxy_doctor.py").read_bytes())
    assert done(place_dags(tmp_path))["galaxy_doctor.py"] == "copied"


def test_links_lead_to_the_files_and_turn_into_copies_and_back(tmp_path: Path, upgrade: Callable[[], Path]) -> None:
    target = tmp_path / "dags"
    assert done(place_dags(target, link=True)) == dict.fromkeys(NAMES, "linked")
    assert all((target / name).readlink() == ROOT / "dags" / name for name in NAMES)
    assert done(place_dags(target, link=True)) == dict.fromkeys(NAMES, "kept")
    assert done(place_dags(target)) == dict.fromkeys(NAMES, "copied")
    assert not any((target / name).is_symlink() for name in NAMES)
    assert (ROOT / "dags" / NAMES[0]).read_bytes()[-8:] != (target / NAMES[0]).read_bytes()[-8:], "not through a link"
    folder = upgrade()
    assert done(place_dags(target, link=True)) == dict.fromkeys(NAMES, "linked")
    assert (target / NAMES[0]).readlink() == folder / NAMES[0]
    (target / NAMES[0]).unlink()
    (target / NAMES[0]).symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(DagFilesError, match=NAMES[0]):
        place_dags(target, link=True)


def test_a_link_to_a_package_that_is_gone_is_replaced(tmp_path: Path) -> None:
    gone = tmp_path / "old" / "lib" / "taskgalaxy_ops" / "_dags" / NAMES[0]
    (tmp_path / NAMES[0]).symlink_to(gone)
    assert done(place_dags(tmp_path, link=True))[NAMES[0]] == "linked"


def test_the_folder_that_the_files_are_in_stays_as_it_is(upgrade: Callable[[], Path]) -> None:
    folder = upgrade()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for link in (False, True):
        assert done(place_dags(folder, link=link)) == dict.fromkeys(NAMES, "kept")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).mkdir()
    with pytest.raises(DagFilesError, match=NAMES[0]):
        place_dags(tmp_path)


def test_a_package_without_dags_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dag_files, "_PACKAGE", tmp_path / "taskgalaxy_ops")
    with pytest.raises(DagFilesError, match="holds no DAG files"):
        dag_files.dag_ids()
    assert dag_files.plugins_folder() is None


def test_the_command_tells_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["airflow", "dags", str(tmp_path / "dags")]) == 0
    assert capsys.readouterr().out.splitlines() == [f"copied {tmp_path / 'dags' / name}" for name in NAMES]
    assert cli.main(["airflow", "dags", str(tmp_path / "dags"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"folder": str(tmp_path / "dags"), "files": dict.fromkeys(NAMES, "kept")}
    (tmp_path / "dags" / NAMES[0]).write_text("# mine\n", "utf-8")
    assert cli.main(["airflow", "dags", str(tmp_path / "dags")]) == 1
    assert "--force" in capsys.readouterr().err
    assert cli.main(["airflow", "dags", str(tmp_path / "dags"), "--force"]) == 0
    with pytest.raises(SystemExit):
        cli.main(["airflow", "dags", "--help"])
    assert "entry point" in capsys.readouterr().out
