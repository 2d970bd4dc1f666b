"""The version: the released one from a package or a bare source tree, with the commit in a checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import taskgalaxy_ops
from taskgalaxy_ops import RELEASED_VERSION, cli


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of the project without git, as far as a version needs one."""
    (tmp_path / "tree" / "taskgalaxy_ops").mkdir(parents=True)
    shutil.copy(Path(taskgalaxy_ops.__file__), tmp_path / "tree" / "taskgalaxy_ops" / "__init__.py")
    (tmp_path / "tree" / "pyproject.toml").touch()
    return tmp_path / "tree"


def git(tree: Path, *command: str) -> str:
    me = [
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.org",
        "-c",
        "tag.gpgsign=false",
        "-c",
        "commit.gpgsign=false",
    ]
    done = subprocess.run(["git", *me, *command], cwd=tree, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def told(tree: Path, **environment: str) -> str:
    """``__version__`` of the package in this tree."""
    command = [sys.executable, "-c", "import taskgalaxy_ops; print(taskgalaxy_ops.__version__)"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True, env=environment or None)
    return done.stdout.strip()


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(tree: Path) -> None:
    assert told(tree) == RELEASED_VERSION, "no git"
    git(tree, "init")
    assert told(tree) == RELEASED_VERSION, "no commit"
    git(tree, "add", ".")
    git(tree, "commit", "--message", "one")
    git(tree, "tag", "v9")  # a tag is no version of ours
    commit = git(tree, "rev-parse", "HEAD")
    assert told(tree) == f"{RELEASED_VERSION}+g{commit[:9]}"
    (tree / "untracked").touch()
    assert told(tree) == f"{RELEASED_VERSION}+g{commit[:9]}"
    (tree / "pyproject.toml").write_text("# changed\n", "utf-8")
    assert told(tree) == f"{RELEASED_VERSION}+g{commit[:9]}.dirty"
    assert told(tree, PATH="") == RELEASED_VERSION, "no git on this machine"


def test_another_projects_checkout_is_not_ours(tree: Path) -> None:
    """A virtual environment, or a copy of the sources, inside another project's checkout."""
    git(tree.parent, "init")
    git(tree.parent, "add", ".")
    git(tree.parent, "commit", "--message", "theirs")
    assert told(tree) == RELEASED_VERSION


def test_the_command_and_the_packages_metadata_tell_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    said = capsys.readouterr().out.strip()
    assert said == taskgalaxy_ops.__version__
    assert re.fullmatch(rf"{re.escape(RELEASED_VERSION)}(\+g[0-9a-f]{{9,}}(\.dirty)?)?", said)
    assert version("taskgalaxy-ops") == RELEASED_VERSION


def test_other_names_are_missing_as_ever() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = taskgalaxy_ops.nothing  # type: ignore[attr-defined]
