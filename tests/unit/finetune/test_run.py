"""Fine-tunes without a trainer: recipes, mixtures, keys, jobs as processes, and what the log makes of them."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import base_sets as sets
import pytest
import yaml
from releases import released, workspace

from taskgalaxy_ops.errors import DamageError, JobError, SchedulerError, SettingsError, SourceError
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.finetune.backends.local import LocalBackend
from taskgalaxy_ops.finetune.jobs import Job, Order, State, load, log_tail, prepare
from taskgalaxy_ops.finetune.mixture import Example, base_part, check_licences
from taskgalaxy_ops.finetune.progress import line, points
from taskgalaxy_ops.finetune.recipes import BaseData, Recipe, load_recipe, shipped
from taskgalaxy_ops.finetune.run import Trainings
from taskgalaxy_ops.finetune.trainers.shared import llava_row
from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.models.special_tokens import neutral
from taskgalaxy_ops.progress import Silent
from taskgalaxy_ops.release.local_copy import ReleaseCopy
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Workspace


@pytest.fixture
def store(tmp_path: Path) -> Workspace:
    found = workspace(tmp_path)
    released(found, images=12)
    return found


@pytest.fixture
def copy(store: Workspace) -> ReleaseCopy:
    return finetune_run.release_copy(store, None)


def job(store: Workspace, script: str, key: str = "k" * 64) -> Job:
    """A job that runs a script in the place of a trainer."""
    folder = finetune_run.root(store) / "jobs" / key[:32]
    return Job(
        key=key,
        recipe=load_recipe("tiny"),
        trainer="trl",
        release="v000001",
        folder=folder,
        command=("sh", "-c", script),
        files={},
    )


def wait(until: Callable[[], bool], seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- recipes


def test_every_shipped_recipe_is_whole() -> None:
    assert {"tiny", "llava-v1.5-7b", "llava-v1.5-13b", "internvl-chat-v1.0-7b", "internvl-chat-v2.0-8b"} <= set(
        shipped()
    )
    for name in shipped():
        assert load_recipe(name).name == name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"global_batch": 100, "device_batch": 16}, "no multiple of device_batch"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"epoch": 3}, "epoch: no such field"),
        ({"base_data": [{"name": "a", "annotations": "x"}, {"name": "a", "annotations": "y"}]}, "different names"),
    ],
)
def test_a_recipe_with_a_mistake_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    raw = load_recipe("tiny").model_dump(mode="json")
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**raw, **change}), encoding="utf-8")
    with pytest.raises(SettingsError, match=said):
        load_recipe(str(file))


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"llava-v1\.5-7b"):
        load_recipe("llava-v1.6")


# --- mixtures


@pytest.mark.parametrize("text", ["<image>", "a < image > b", "</s>", "<|im_end|>", "<IMG_CONTEXT>", "<pad>"])
def test_text_holds_nothing_that_a_tokenizer_takes_for_its_own(text: str) -> None:
    found = neutral(f"before {text} after")
    assert "<" not in found
    assert "‹" in found
    assert neutral("a < b, 3<4 and <b>bold</b>") == "a < b, 3<4 and <b>bold</b>"


def test_only_the_first_turn_opens_with_an_image(copy: ReleaseCopy) -> None:
    example = Example("1", "/x.png", (("human", "Q"), ("gpt", "A"), ("human", "R"), ("gpt", "B")))
    values = [turn["value"] for turn in llava_row(example)["conversations"]]
    assert values == ["<image>\nQ", "A", "R", "B"]
    assert "image" not in llava_row(dataclasses.replace(example, image=None))


def test_base_data_are_on_images_that_no_source_claims() -> None:
    data = load_recipe("tiny").base_data[0]
    first = base_part(data, frozenset(), read=True)
    assert first.rows == data.rows
    from taskgalaxy_ops.sources.builtin import easy_vqa

    claimed = frozenset(q.image for q in easy_vqa.questions("train", 45, frozenset()))
    others = base_part(data, claimed, read=True)
    assert others.identity != first.identity
    assert not {e.image for e in others.examples or ()} & {e.image for e in first.examples or ()}


def test_rows_with_odd_line_ends_are_read_whole(tmp_path: Path) -> None:
    row = {
        "id": 1,
        "conversations": [{"from": "human", "value": "a\u2028b"}, {"from": "gpt", "value": "c\x85d <image>"}],
    }
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    data = load_recipe("tiny").base_data[0].model_copy(update={"annotations": str(file)})
    (example,) = base_part(data, frozenset(), read=True).examples or ()
    assert example.turns == (("human", "a\u2028b"), ("gpt", "c\x85d ‹image›"))


def test_a_layout_that_is_unset_changes_no_key(tmp_path: Path) -> None:
    """Identities as they were before recipes could name a layout."""
    file = sets.written(tmp_path / "own.json", '[{"conversations": []},\r\n{"id": 7, "conversations": []}]')
    data = BaseData(name="own", annotations=str(file))
    content = sha256_hex(b'[{"conversations": []},\n{"id": 7, "conversations": []}]')
    before = fingerprint("base", [fingerprint("base", ["own", str(file), None, None]), content])
    found = base_part(data, frozenset(), read=True)
    assert (found.identity, [each.id for each in found.examples or ()]) == (before, ["0", "7"])
    assert "layout" not in data.model_dump(mode="json")
    recipe = load_recipe("tiny")
    assert recipe.model_copy(update={"base_data": (data,)}).identity("trl") == fingerprint(
        "recipe",
        {
            **recipe.model_dump(
                mode="json", exclude={"about", "blind_control", "trainers", "template", "base", "base_data"}
            ),
            "base": recipe.base.model_dump(mode="json", exclude={"published"}),
            "base_data": [{"name": "own", "annotations": str(file), "images": "", "repeat": 1}],
            "template": None,
        },
    )


def test_rows_of_a_layout_are_checked_and_those_left_out_are_told(copy: ReleaseCopy, tmp_path: Path) -> None:
    file = sets.cambrian(tmp_path)
    data = BaseData(name="cambrian", annotations=str(file), layout="llava", images=str(tmp_path))
    part = base_part(data, frozenset(), read=False)  # read here, whoever trains
    assert (part.rows, part.left_out) == (3, {"it has a system turn": 1})
    assert [each.image for each in part.examples or ()] == [str(tmp_path / "clevr/0.png"), None, None]
    recipe = load_recipe("tiny").model_copy(update={"base_data": (data,)})
    job = prepare(Order(recipe=recipe, release=copy), tmp_path)
    assert json.loads(job.files["job.json"])["mixture"][1]["left_out"] == {"it has a system turn": 1}
    (tmp_path / "clevr/0.png").unlink()
    assert base_part(data, frozenset(), read=True).identity != part.identity
    held = data.model_copy(update={"layout": "onevision"})
    parquet = sets.onevision(tmp_path / "ov") / "geo3k/train-00000-of-00001.parquet"
    with pytest.raises(SettingsError, match="mix it by `taskgalaxy release mix`"):
        base_part(held.model_copy(update={"annotations": str(parquet)}), frozenset(), read=True)


def test_base_data_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    data = load_recipe("tiny").base_data[0].model_copy(update={"annotations": str(tmp_path / "none.json")})
    with pytest.raises(SettingsError, match=r"easy-vqa: .*none.json cannot be read"):
        base_part(data, frozenset(), read=True)


def test_a_licence_that_may_not_be_trained_on_is_named(copy: ReleaseCopy) -> None:
    check_licences(copy, None)
    check_licences(copy, ["CC0-1.0"])
    with pytest.raises(SourceError, match=r"'CC0-1.0' \(\d+ samples\)"):
        check_licences(copy, ["MIT"])


def test_an_image_without_a_licence_is_unknown(tmp_path: Path) -> None:
    store = workspace(tmp_path)
    released(store, images=8, licence=None)
    copy = finetune_run.release_copy(store, None)
    check_licences(copy, ["unknown"])
    with pytest.raises(SourceError, match="'unknown'"):
        check_licences(copy, ["MIT"])


def test_a_damaged_copy_is_refused(copy: ReleaseCopy) -> None:
    image = next((copy.folder / "images").rglob("*.jpg"))
    image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(DamageError, match=image.name):
        copy.check()


# --- keys


def test_whatever_decides_the_outcome_is_in_the_key(copy: ReleaseCopy, tmp_path: Path, store: Workspace) -> None:
    tiny = load_recipe("tiny")
    first = Order(recipe=tiny, release=copy)
    samples = frozenset(row["id"] for row in copy.rows("train"))
    released(store, images=13)
    others = [
        Order(recipe=tiny.model_copy(update={"learning_rate": 0.1}), release=copy),
        Order(recipe=tiny, release=None),
        Order(recipe=tiny, release=finetune_run.release_copy(store, "v000002")),
        dataclasses.replace(first, blind=True),
        dataclasses.replace(first, only=frozenset(sorted(samples)[:3])),
        dataclasses.replace(first, seed=7),
        dataclasses.replace(first, container="registry/image@sha256:" + "0" * 64),
    ]
    found = [prepare(order, tmp_path).key for order in (first, *others)]
    assert len(set(found)) == len(found)


def test_what_decides_nothing_is_not_in_the_key(copy: ReleaseCopy, tmp_path: Path) -> None:
    tiny = load_recipe("tiny")
    key = prepare(Order(recipe=tiny, release=copy), tmp_path).key
    assert (
        prepare(
            Order(recipe=tiny.model_copy(update={"about": "else", "blind_control": False}), release=copy),
            tmp_path / "x",
        ).key
        == key
    )


def test_a_blind_job_shows_grey_alone(copy: ReleaseCopy, tmp_path: Path) -> None:
    made = prepare(Order(recipe=load_recipe("tiny"), release=copy, blind=True), tmp_path)
    made.write()
    shown = {row["image"] for row in json.loads(made.files["data/train.json"]) if "image" in row}
    assert shown == {str(made.folder / "data/blank.png")}
    assert all(Path(image).is_file() for image in shown)


def test_a_written_job_is_loaded_as_it_was(copy: ReleaseCopy, tmp_path: Path) -> None:
    made = prepare(Order(recipe=load_recipe("tiny"), release=copy), tmp_path)
    made.write()
    found = load(tmp_path, made.key)
    assert (found.script(), found.folder, found.recipe) == (made.script(), made.folder, made.recipe)
    with pytest.raises(JobError, match=r"Every worker must see finetune\.folder"):
        load(tmp_path, "0" * 64)


def test_a_recipe_is_not_rendered_for_another_trainer(copy: ReleaseCopy, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not for llava"):
        prepare(Order(recipe=load_recipe("tiny"), release=copy, trainer="llava"), tmp_path)


# --- progress


OURS = '{"step": 3, "steps": 9, "loss": 1.5, "learning_rate": 0.1, "seconds_left": 4.0}\n{"st'
FACTORY = '{"current_steps": 3, "total_steps": 9, "loss": 1.5, "lr": 0.1, "remaining_time": "0:01:05"}'
SWIFT = '{"loss": 1.5, "learning_rate": 0.1, "global_step/max_steps": "3/9"}'
PRINTED = " 33%|###  | 3/9 [00:10<01:05, 2s/it]{'loss': 1.5, 'learning_rate': 0.1, 'epoch': 0.3}\n"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("progress.jsonl", OURS, "3 of 9"),
        ("output/trainer_log.jsonl", FACTORY, "65 s"),
        ("output/logging.jsonl", SWIFT, "3 of 9"),
        ("log.txt", PRINTED, "65 s"),
    ],
)
def test_each_trainers_progress_is_read(tmp_path: Path, file: str, text: str, said: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    (found,) = points(tmp_path)
    assert (found.step, found.steps, found.loss, found.learning_rate) == (3, 9, 1.5, 0.1)
    assert said in line(found)


def test_no_progress_yet(tmp_path: Path) -> None:
    assert points(tmp_path) == []
    (tmp_path / "log.txt").write_bytes(b"\xff\xfe{'loss': broken}")
    assert points(tmp_path) == []


# --- jobs as processes


def test_a_job_runs_and_leaves_its_result(store: Workspace) -> None:
    one, backend = job(store, 'echo hello; echo \'{"checkpoint": "there"}\' > result.json'), LocalBackend()
    assert backend.state(one, None) is State.UNKNOWN
    one.write()
    backend.submit(one)
    wait(lambda: backend.state(one, None) is State.SUCCEEDED)
    assert log_tail(one.folder) == ["hello"]


def test_a_job_outlives_its_submitter(store: Workspace) -> None:
    """The submitter's whole process group is killed, as a worker that dies; the job ends as if nothing had been."""
    one = job(store, "sleep 1.5; echo done")
    one.write()
    code = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from taskgalaxy_ops.finetune.backends.local import LocalBackend
        from taskgalaxy_ops.finetune.jobs import Job
        from taskgalaxy_ops.finetune.recipes import load_recipe
        folder = Path({str(one.folder)!r})
        LocalBackend().submit(
            Job(
                key={one.key!r}, recipe=load_recipe("tiny"), trainer="trl", release=None, folder=folder,
                command=("true",), files={{}},
            )
        )
        print("submitted", flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as submitter:
        assert submitter.stdout
        assert submitter.stdout.readline() == b"submitted\n"
        os.killpg(submitter.pid, signal.SIGKILL)
    assert LocalBackend().state(one, None) is State.RUNNING
    wait(lambda: LocalBackend().state(one, None) is State.SUCCEEDED)
    assert log_tail(one.folder) == ["done"]


def test_many_submitters_start_one(store: Workspace) -> None:
    one = job(store, "echo started >> starts; sleep 1")
    one.write()
    threads = [threading.Thread(target=LocalBackend().submit, args=(one,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait(lambda: LocalBackend().state(one, None) is State.SUCCEEDED)
    assert (one.folder / "starts").read_text() == "started\n"


def test_a_cancelled_job_stops_with_all_that_it_started(store: Workspace) -> None:
    one, backend = job(store, "sleep 60 & echo $! > child; wait"), LocalBackend()
    one.write()
    backend.submit(one)
    wait(lambda: (one.folder / "child").is_file() and (one.folder / "child").read_text().strip() != "")
    child = int((one.folder / "child").read_text())
    assert alive(child)
    backend.cancel(one, None)
    assert backend.state(one, None) is State.CANCELLED
    assert not alive(child)
    backend.cancel(one, None)  # again: nothing to do


# --- what the log makes of them


def steps(store: Workspace, one: Job, run: str = "run") -> Iterator[State]:
    trainings = Trainings(store, run)
    while True:
        yield trainings.step(one)


def until(store: Workspace, one: Job, state: State, run: str = "run") -> None:
    for found in steps(store, one, run):
        if found is state:
            return
        time.sleep(0.05)


def intents(store: Workspace) -> int:
    return sum(entry.body["kind"] == "intent" for entry in Log(store.store, keys.FINETUNE_LOG).read())


def test_a_job_is_trained_once(store: Workspace) -> None:
    one = job(store, "mkdir -p output; echo x >> starts")
    until(store, one, State.SUCCEEDED)
    assert Trainings(store, "another").step(one) is State.SUCCEEDED
    assert (one.folder / "starts").read_text() == "x\n"
    assert intents(store) == 1
    assert finetune_run.results(store, {"one": one})["one"]["checkpoint"] == str(one.folder / "output")


def test_the_intent_is_written_before_the_job_is_submitted(store: Workspace) -> None:
    class Dies(LocalBackend):
        def submit(self, job: Job) -> str:
            raise KeyboardInterrupt

    one = job(store, "mkdir -p output")
    with pytest.raises(KeyboardInterrupt):
        Trainings(store, "run", Dies()).step(one)
    assert intents(store) == 1
    until(store, one, State.SUCCEEDED, "another")  # nothing ran: the next one submits it


def test_a_running_job_whose_handle_was_lost_is_found(store: Workspace) -> None:
    class Forgets(LocalBackend):
        def submit(self, job: Job) -> str:
            super().submit(job)
            raise KeyboardInterrupt  # killed before the handle is noted

    one = job(store, "echo x >> starts; sleep 1; mkdir -p output")
    with pytest.raises(KeyboardInterrupt):
        Trainings(store, "run", Forgets()).step(one)
    until(store, one, State.SUCCEEDED, "another")
    assert (one.folder / "starts").read_text() == "x\n"
    assert intents(store) == 1


def test_a_crashed_trainer_ends_in_an_error_with_its_last_lines(store: Workspace) -> None:
    one = job(store, "seq 50; echo 'CUDA out of memory' >&2; exit 7")
    with pytest.raises(JobError, match=r"(?s)failed.*log.txt.*49.*50.*CUDA out of memory"):
        until(store, one, State.SUCCEEDED)
    assert intents(store) == 1  # not tried again by itself …
    with pytest.raises(JobError):
        until(store, one, State.SUCCEEDED, "another run")
    assert intents(store) == 2  # … but when somebody asks for it


def test_a_job_that_vanishes_is_started_again_and_not_for_ever(store: Workspace) -> None:
    one = job(store, "echo x >> starts; kill -9 $PPID; kill -9 $$")
    with pytest.raises(JobError, match="vanished 3 times"):
        until(store, one, State.SUCCEEDED)
    assert 3 <= intents(store) <= 4


def test_a_job_that_takes_too_long_is_cancelled(tmp_path: Path) -> None:
    store = workspace(tmp_path, hours=1e-9)
    one = job(store, "sleep 60")
    with pytest.raises(JobError, match=r"longer than finetune\.hours"):
        until(store, one, State.SUCCEEDED)
    assert LocalBackend().state(one, None) is State.CANCELLED


def test_a_cancelled_job_is_an_error_to_who_waits_for_it(store: Workspace) -> None:
    one = job(store, "sleep 60")
    Trainings(store, "run").step(one)
    assert Trainings(store, "somebody").cancel(one)
    with pytest.raises(JobError, match="was cancelled"):
        Trainings(store, "run").step(one)
    assert not Trainings(store, "somebody").cancel(one)


def test_who_waits_for_anothers_job_is_told_of_its_end(store: Workspace) -> None:
    one = job(store, "sleep 60")
    Trainings(store, "submits").step(one)
    assert Trainings(store, "waits").step(one) is State.RUNNING
    assert Trainings(store, "somebody").cancel(one)
    with pytest.raises(JobError, match="was cancelled"):
        Trainings(store, "waits").step(one)
    assert intents(store) == 1  # and does not start it again


def test_a_scheduler_that_does_not_answer_now_and_then_is_asked_again(store: Workspace) -> None:
    one = job(store, "mkdir -p output")
    asked = []

    class Moody(LocalBackend):
        def state(self, job: Job, handle: str | None) -> State:
            asked.append(job)
            if len(asked) % 2:
                raise SchedulerError("busy")
            return super().state(job, handle)

    said: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            said.append(text)

    Trainings(store, "run").step(one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_run, "open_backend", lambda _: Moody())
        found = finetune_run.train(store, {"one": one}, "run", Notes())
    assert found["one"]["checkpoint"] == str(one.folder / "output")
    assert "busy" in said


def test_a_checkpoint_that_is_gone_is_trained_anew(store: Workspace) -> None:
    one = job(store, "mkdir -p output; echo x >> starts")
    until(store, one, State.SUCCEEDED)
    (one.folder / "output").rmdir()
    until(store, one, State.SUCCEEDED, "another")
    assert (one.folder / "starts").read_text() == "x\nx\n"


def test_a_job_that_leaves_no_checkpoint_is_an_error(store: Workspace) -> None:
    with pytest.raises(JobError, match=r"no checkpoint at .*output"):
        until(store, job(store, "true"), State.SUCCEEDED)


def test_on_one_machine_models_are_trained_one_after_another_and_tiny_ones_side_by_side(store: Workspace) -> None:
    tiny = load_recipe("tiny")
    big = tiny.model_copy(update={"base": tiny.base.model_copy(update={"model": "x/y"})})
    both = {"one": job(store, "sleep 0.5; mkdir -p output"), "two": job(store, "mkdir -p output", "l" * 64)}
    trainings = Trainings(store, "run")
    one_by_one = {role: dataclasses.replace(each, recipe=big) for role, each in both.items()}
    assert trainings.advance(one_by_one) == {"one": State.RUNNING}
    assert trainings.advance(both) == {"one": State.RUNNING, "two": State.RUNNING}
    wait(lambda: trainings.done(both))


def test_nothing_is_trained_without_a_release(tmp_path: Path) -> None:
    store = workspace(tmp_path)
    with pytest.raises(SourceError, match="nothing has been released"):
        finetune_run.tuning(store)
    released(store, images=8)
    with pytest.raises(SourceError, match="There are v000001"):
        finetune_run.tuning(store, release="v000009")


def test_the_tuning_of_a_release(store: Workspace) -> None:
    found = finetune_run.tuning(store)
    assert list(found.jobs) == ["before", "after", "blind"]
    assert len({one.key for one in found.jobs.values()}) == 3
    for one in found.jobs.values():
        one.write()
    again = finetune_run.written(store, "v000001", {role: one.key for role, one in found.jobs.items()})
    assert [one.script() for one in again.jobs.values()] == [one.script() for one in found.jobs.values()]


def test_a_recipe_whose_makers_published_the_baseline_trains_none(store: Workspace, tmp_path: Path) -> None:
    own = {
        "base_data": (),
        "trainers": ("llava",),
        "base": {"model": "x/y", "published": "x/y-sft"},
        "freeze_vision": True,
    }
    raw = {**load_recipe("tiny").model_dump(mode="json"), **own, "blind_control": False}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(Recipe.model_validate(raw).model_dump(mode="json")), encoding="utf-8")
    found = finetune_run.tuning(store, recipe=str(file))
    assert (list(found.jobs), found.published) == (["after"], "x/y-sft")
