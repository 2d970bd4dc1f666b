"""Jobs by a scheduler's commands: a stand-in for Slurm runs them as processes of its own."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskgalaxy_ops.errors import JobError, SettingsError
from taskgalaxy_ops.finetune.backends.command import CommandBackend
from taskgalaxy_ops.finetune.jobs import EXIT, Job, State
from taskgalaxy_ops.finetune.recipes import load_recipe
from taskgalaxy_ops.settings import CommandSettings

SCHEDULER = Path(__file__).parents[2] / "fake_scheduler.py"
KEY = "0123456789abcdef" * 4
OK = ("sh", "-c", "echo trained")
WAITS = ("sh", "-c", "echo $$ >pid; while [ ! -e go ]; do sleep 0.05; done")


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "queue"
    folder.mkdir()
    yield folder
    for file in folder.glob("*.job"):  # what a failed test has left
        try:
            os.killpg(json.loads(file.read_text())["pid"], 9)
        except ProcessLookupError:
            continue


def backend(queue: Path, *, finds: bool = True, seconds: float = 20.0, **changes: object) -> CommandBackend:
    call = (sys.executable, str(SCHEDULER), str(queue))
    raw = {
        "submit": (*call, "submit", "{name}", "{script}"),
        "find": (*call, "find", "{name}") if finds else (),
        "status": (*call, "status", "{handle}"),
        "cancel": (*call, "cancel", "{handle}"),
        **changes,
    }
    return CommandBackend(CommandSettings.model_validate(raw), seconds)


def job(tmp_path: Path, command: tuple[str, ...] = OK, folder: str = "job") -> Job:
    made = Job(
        key=KEY,
        recipe=load_recipe("tiny"),
        trainer="trl",
        release="v1",
        folder=tmp_path / folder,
        command=command,
        files={},
    )
    made.write()
    return made


def wait(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < give_up, "it did not happen within 15 s"
        time.sleep(0.05)


def asked(queue: Path, what: str) -> list[list[str]]:
    lines = (queue / "asked.jsonl").read_text().splitlines()
    return [told for first, *told in map(json.loads, lines) if first == what]


def test_a_job_runs_and_succeeds(queue: Path, tmp_path: Path) -> None:
    scheduler, made = backend(queue), job(tmp_path, WAITS)
    assert scheduler.state(made, None) is State.UNKNOWN
    handle = scheduler.submit(made)
    assert handle == "1"
    assert asked(queue, "submit") == [[made.name, str(made.folder / "run.sh")]]
    assert scheduler.state(made, handle) is State.RUNNING
    (made.folder / "go").touch()
    wait(lambda: scheduler.state(made, handle) is State.SUCCEEDED)


def test_a_job_fails(queue: Path, tmp_path: Path) -> None:
    scheduler, made = backend(queue), job(tmp_path, ("sh", "-c", "exit 3"))
    handle = scheduler.submit(made)
    wait(lambda: scheduler.state(made, handle) is State.FAILED)
    assert json.loads((made.folder / EXIT).read_text()) == {"code": 3}
    made.write()
    assert scheduler.submit(made) == "2"  # what failed is begun anew


def test_cancelling_stops_its_processes(queue: Path, tmp_path: Path) -> None:
    scheduler, made = backend(queue), job(tmp_path, WAITS)
    handle = scheduler.submit(made)
    wait((made.folder / "pid").is_file)
    scheduler.cancel(made, handle)
    wait(lambda: scheduler.state(made, handle) is State.CANCELLED)
    pid = int((made.folder / "pid").read_text())
    wait(lambda: not alive(pid))
    scheduler.cancel(made, handle)  # not an error
    assert len(asked(queue, "cancel")) == 1
    assert scheduler.submit(made) == "2"
    assert scheduler.state(made, "2") is State.RUNNING


def test_what_cannot_be_cancelled_is_not_called_cancelled(queue: Path, tmp_path: Path) -> None:
    scheduler, made = backend(queue, cancel=("sh", "-c", "echo not yours >&2; exit 4")), job(tmp_path, WAITS)
    handle = scheduler.submit(made)
    with pytest.raises(JobError, match="failed with code 4: not yours"):
        scheduler.cancel(made, handle)
    assert scheduler.state(made, handle) is State.RUNNING
    (made.folder / "go").touch()
    wait(lambda: scheduler.state(made, handle) is State.SUCCEEDED)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_submitted_twice_it_runs_once(queue: Path, tmp_path: Path) -> None:
    made = job(tmp_path, WAITS)
    handles: list[str] = []
    threads = [threading.Thread(target=lambda: handles.append(backend(queue).submit(made))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handles == ["1"] * 3
    assert len(asked(queue, "submit")) == 1


def test_a_lost_handle_is_found_by_name(queue: Path, tmp_path: Path) -> None:
    made = job(tmp_path, WAITS)
    backend(queue).submit(made)
    (made.folder / "handle").unlink()  # as if it died between the scheduler's word and the note
    other = backend(queue)
    assert other.find(made) == "1"
    assert other.state(made, None) is State.RUNNING
    assert other.submit(made) == "1"


def test_without_find_the_note_counts(queue: Path, tmp_path: Path) -> None:
    made, scheduler = job(tmp_path, WAITS), backend(queue, finds=False)
    assert scheduler.find(made) is None
    scheduler.submit(made)
    assert backend(queue, finds=False).submit(made) == "1"
    (made.folder / "go").touch()
    wait(lambda: scheduler.state(made, None) is State.SUCCEEDED)
    assert asked(queue, "find") == []


def test_a_job_that_vanished_is_unknown(queue: Path, tmp_path: Path) -> None:
    """A node that dies leaves no word of how the job ended."""
    scheduler, made = backend(queue), job(tmp_path, WAITS)
    handle = scheduler.submit(made)
    os.killpg(json.loads((queue / "1.job").read_text())["pid"], 9)
    wait(lambda: scheduler.state(made, handle) is State.UNKNOWN)


def test_a_scheduler_that_is_down(queue: Path, tmp_path: Path) -> None:
    scheduler, made = backend(queue), job(tmp_path, WAITS)
    (queue / "down").touch()
    with pytest.raises(JobError, match=rf"{made.name}: .* find .*failed with code 1: Unable to contact slurm"):
        scheduler.submit(made)
    (queue / "down").unlink()
    handle = scheduler.submit(made)
    (queue / "down").touch()
    with pytest.raises(JobError, match="Unable to contact"):
        scheduler.state(made, handle)
    with pytest.raises(JobError, match="Unable to contact"):
        scheduler.cancel(made, handle)
    (queue / "down").unlink()
    assert scheduler.state(made, handle) is State.RUNNING  # and not cancelled


def test_a_scheduler_that_does_not_answer(queue: Path, tmp_path: Path) -> None:
    (queue / "stuck").touch()
    began = time.monotonic()
    with pytest.raises(JobError, match=r"took longer than 3 s: waiting for the controller. Is the scheduler up"):
        backend(queue, seconds=3).submit(job(tmp_path))
    assert time.monotonic() - began < 60


def test_a_command_that_there_is_not(queue: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no-such-program .*cannot be started .* See finetune.command.submit"):
        backend(queue, submit=("no-such-program", "{script}")).submit(job(tmp_path))


def test_an_answer_without_a_handle(queue: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"said 'accepted', in which finetune.command.handle .* Correct the pattern"):
        backend(queue, submit=("echo", "accepted")).submit(job(tmp_path))


@pytest.mark.parametrize(
    "folder", ["two words", 'it\'s "quoted"', "$(touch made)", "`touch made`;touch made", "{name} %s"]
)
def test_a_folders_name_is_only_a_name(folder: str, queue: Path, tmp_path: Path) -> None:
    scheduler, made = backend(queue), job(tmp_path, folder=folder)
    handle = scheduler.submit(made)
    wait(lambda: scheduler.state(made, handle) is State.SUCCEEDED)
    assert asked(queue, "submit") == [[made.name, str(tmp_path / folder / "run.sh")]]
    assert not list(tmp_path.rglob("made"))


@pytest.mark.parametrize(
    ("field", "argument", "message"),
    [
        (
            "submit",
            "--job={nmae}",
            r"submit: '--job=\{nmae\}' has the placeholder \{nmae\}, and there are \{script\}, ",
        ),
        ("submit", "{handle}", r"placeholder \{handle\}"),
        ("find", "{handle}", r"placeholder \{handle\}"),
        ("status", "{name.__class__}", r"placeholder \{name.__class__\}"),
        ("cancel", "{}", r"placeholder \{\}"),
        ("cancel", "{name!r}", r"placeholder \{name\}"),
        ("status", "{.status", "a brace without its other"),
    ],
)
def test_a_placeholder_that_there_is_not(field: str, argument: str, message: str, queue: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        backend(queue, **{field: ("echo", argument)})


@pytest.mark.parametrize("pattern", ["(", r"\d+", "(a)(b)"])
def test_a_pattern_that_names_no_handle(pattern: str, queue: Path) -> None:
    with pytest.raises(SettingsError, match=r"finetune\.command\.handle"):
        backend(queue, handle=pattern)


def test_all_placeholders_are_filled(queue: Path, tmp_path: Path) -> None:
    written = "{name}|{key}|{devices}|{folder}|{{kept}}"
    scheduler = backend(queue, submit=("sh", "-c", 'printf "%s" "$1" >told; echo 7', "sh", written))
    made = job(tmp_path)
    assert scheduler.submit(made) == "7"
    assert (made.folder / "told").read_text() == f"{made.name}|{KEY}|1|{made.folder}|{{kept}}"


@pytest.mark.parametrize(
    ("said", "expected"), [("job_state = R", True), ("RUNNING", False), ("", False), ("R\n", True)]
)
def test_a_running_word_is_a_whole_word(said: str, expected: bool, queue: Path, tmp_path: Path) -> None:
    scheduler = backend(queue, finds=False, status=("echo", said), running=("R",))
    assert (scheduler.state(job(tmp_path), "1") is State.RUNNING) is expected
