"""Fine-tunes of a store: what is to be trained, one step further at each look, and what is known of each job.

The store's log ``finetune/log`` holds ``{"kind": "intent", "key", "run", …}`` before a job is submitted, ``submitted``
with its handle after, and ``ended`` with its result. Whoever comes later, in another process or on another day, finds
the job by its key and starts none that runs or has succeeded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import JobError, SchedulerError, SourceError
from taskgalaxy_ops.finetune.backends import open_backend
from taskgalaxy_ops.finetune.jobs import EXIT, Job, Order, State, TrainBackend, load, log_tail, prepare, result_of
from taskgalaxy_ops.finetune.mixture import check_licences
from taskgalaxy_ops.finetune.progress import line, points
from taskgalaxy_ops.finetune.recipes import Recipe, load_recipe
from taskgalaxy_ops.finetune.tiny import TINY
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.local_copy import ReleaseCopy
from taskgalaxy_ops.release.publish import Published
from taskgalaxy_ops.settings import FinetuneSettings, validated
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.workspace import Workspace

BEFORE, AFTER, BLIND = "before", "after", "blind"
_INTENT_SECONDS = 30.0  # how long another's intent is waited for before it counts as a dead one's
_SILENT_LOOKS = 20
_VANISHED = 3  # how often a job may vanish without an end before that is an error


@dataclass(frozen=True)
class Tuning:
    """What one order comes to: the release's copy, and the job of each role.

    ``before`` is missing where the recipe's makers published that checkpoint; ``blind`` where the recipe has no such
    control.
    """

    recipe: Recipe
    release: Published
    copy: ReleaseCopy
    jobs: Mapping[str, Job]  # by role, in the order in which they are trained

    @property
    def published(self) -> str | None:
        """The checkpoint that stands for ``before`` where no job does."""
        return None if BEFORE in self.jobs else self.recipe.base.published


def chosen_release(workspace: Workspace, name: str | None) -> Published:
    """The release of this name (v000001), or the latest. Raises SourceError."""
    there = publish.published(workspace)
    if not there:
        raise SourceError("fine-tune: nothing has been released. Run `taskgalaxy release` (or galaxy_release) first.")
    for one in there:
        if one.name == name:
            return one
    if name:
        raise SourceError(f"fine-tune: there is no release {name!r}. There are {', '.join(one.name for one in there)}.")
    return there[-1]


def root(workspace: Workspace) -> Path:
    """``finetune.folder``, absolute."""
    return Path(workspace.settings.finetune.folder).expanduser().resolve()


def on_backend(workspace: Workspace, backend: str | None) -> Workspace:
    """The store with this backend instead of the settings' (None: theirs). Raises SettingsError."""
    if backend is None:
        return workspace
    wanted = {**workspace.settings.finetune.model_dump(mode="json"), "backend": backend}
    chosen = validated(FinetuneSettings, wanted, f"backend {backend}")
    return workspace.with_settings(finetune=chosen)


def release_copy(workspace: Workspace, name: str | None) -> ReleaseCopy:
    """A local copy of a release (None: of the latest), whole. Raises SourceError, DamageError."""
    copy = ReleaseCopy(publish.fetch(workspace, chosen_release(workspace, name), root(workspace) / "releases"))
    copy.check()
    return copy


def tuning(
    workspace: Workspace, *, release: str | None = None, recipe: str | None = None, trainer: str | None = None
) -> Tuning:
    """Check a release and render its jobs. Submits nothing.

    Raises SettingsError, SourceError (a licence that may not be trained on), DamageError (a release that is not whole).
    """
    settings = workspace.settings.finetune
    chosen = load_recipe(recipe or settings.recipe)
    one = chosen_release(workspace, release)
    copy = release_copy(workspace, one.name)
    check_licences(copy, settings.licences)
    container = settings.kubernetes.image if settings.backend == "kubernetes" and settings.kubernetes else None
    excluded = known_images(workspace, copy)

    def job(release: ReleaseCopy | None, blind: bool = False) -> Job:
        order = Order(
            recipe=chosen, release=release, trainer=trainer, blind=blind, excluded=excluded, container=container
        )
        return prepare(order, root(workspace))

    jobs = {}
    # LLaVA's trainer starts where the published checkpoint did; others go on from it, and must see the base data again.
    if not chosen.base.published or (trainer or chosen.trainers[0]) != "llava":
        jobs[BEFORE] = job(None)
    jobs[AFTER] = job(copy)
    if chosen.blind_control:
        jobs[BLIND] = job(copy, blind=True)
    return Tuning(chosen, one, copy, jobs)


def known_images(workspace: Workspace, copy: ReleaseCopy) -> frozenset[str]:
    """Images (sha256) that a source claims or the release holds: neither base data nor a benchmark may show them."""
    held = {row["image_id"] for row in copy.table(["train", "validation", "test"], ["image_id"])}
    return frozenset(held | {claim.image for claim in workspace.registry.claims()})


def written(workspace: Workspace, release: str, keys_: Mapping[str, str]) -> Tuning:
    """A tuning whose jobs were rendered and written before; ``keys_``: their keys by role. Raises JobError."""
    one = chosen_release(workspace, release)
    jobs = {role: load(root(workspace), key) for role, key in keys_.items()}
    return Tuning(jobs[AFTER].recipe, one, ReleaseCopy(root(workspace) / "releases" / one.name), jobs)


class Trainings:
    """Drives jobs of a store on one backend. ``run`` names this attempt: a job that failed in it is not tried again."""

    def __init__(self, workspace: Workspace, run: str, backend: TrainBackend | None = None) -> None:
        self._hours = workspace.settings.finetune.hours
        self._log = Log(workspace.store, keys.FINETUNE_LOG)
        self._run = run
        self.backend = backend or open_backend(workspace.settings.finetune)

    def step(self, job: Job) -> State:
        """Bring a job one step further: submit it unless it runs or has succeeded; note what became of it.

        Raises JobError, with the last lines of its log, where it failed or was cancelled in this run.
        """
        job = self.backend.render(job)
        known = self._known(job.key)
        if known.result is not None and _there(known.result):
            return State.SUCCEEDED
        handle = known.handle or (self.backend.find(job) if known.intents else None)
        state = self.backend.state(job, handle) if known.intents else State.UNKNOWN
        if state is State.RUNNING:
            if handle and handle != known.handle:
                self._append("submitted", job, handle=handle)
            if self._run not in known.runs:
                self._append("awaited", job, run=self._run)
            if known.at and datetime.now(UTC) - datetime.fromisoformat(known.at) > timedelta(hours=self._hours):
                self.backend.cancel(job, handle)
                self._append("ended", job, state=str(State.CANCELLED))
                raise JobError(
                    f"{_failure(job, State.CANCELLED)}\nIt took longer than finetune.hours = {self._hours:g}."
                )
            return state
        mine = self._run in known.runs
        if state is State.SUCCEEDED and _there(found := result_of(job.folder)):
            self._append("ended", job, state=str(state), result=found)
            return state
        if mine and state is State.SUCCEEDED:
            self._append("ended", job, state=str(State.FAILED))
            raise JobError(
                f"job {job.name}: it ended well, but there is no checkpoint at {found['checkpoint']}. Run it again; if "
                "the scheduler still has the job, delete it there first."
            )
        if mine and state in {State.FAILED, State.CANCELLED}:
            self._append("ended", job, state=str(state))
            raise JobError(_failure(job, state))
        if known.vanished >= _VANISHED:
            raise JobError(f"{_failure(job, State.UNKNOWN)}\nIt vanished {known.vanished} times without an end.")
        if state is State.SUCCEEDED:  # its checkpoint is gone: forget how it ended
            (job.folder / EXIT).unlink(missing_ok=True)
        self._submit(job, known.intents)
        return State.RUNNING

    def _submit(self, job: Job, intents: int) -> None:
        body = {"recipe": job.recipe.name, "trainer": job.trainer, "release": job.release, "backend": self.backend.name}
        body |= {"run": self._run, "at": datetime.now(UTC).isoformat(timespec="seconds"), "folder": str(job.folder)}

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            others = _of(entries, job.key).intents
            return {"kind": "intent", "key": job.key, **body} if others == intents else None

        give_up = time.monotonic() + _INTENT_SECONDS
        while self._log.append_if(decide) is None:
            # Another was first, and will submit it; if it died in between, this one does.
            if self._known(job.key).handle or self.backend.find(job):
                return
            if time.monotonic() > give_up:
                intents = self._known(job.key).intents
                continue
            time.sleep(0.5)
        job.write()
        handle = self.backend.submit(job)
        self._append("submitted", job, handle=handle)

    def cancel(self, job: Job) -> bool:
        """Stop a job; False if it does not run."""
        job = self.backend.render(job)
        known = self._known(job.key)
        handle = known.handle or self.backend.find(job)
        if self.backend.state(job, handle) is not State.RUNNING:
            return False
        self.backend.cancel(job, handle)
        self._append("ended", job, state=str(State.CANCELLED))
        return True

    def handle(
        self, jobs: Mapping[str, Job], *, submit: bool = False, cancel: bool = False
    ) -> dict[str, dict[str, str]]:
        """Write the jobs' files, submit or cancel them where that is asked, and say where each stands."""
        found = {}
        states = self.advance(jobs) if submit else {}
        for role, job in jobs.items():
            if cancel:
                state = State.CANCELLED if self.cancel(job) else self._state(job)
            elif submit:
                state = states.get(role, State.UNKNOWN)
            else:
                self.backend.render(job).write()
                state = self._state(job)
            found[role] = {"name": job.name, "key": job.key, "folder": str(job.folder), "state": str(state)}
        return found

    def _state(self, job: Job) -> State:
        known = self._known(job.key)
        return self.backend.state(job, known.handle) if known.intents else State.UNKNOWN

    def advance(self, jobs: Mapping[str, Job]) -> dict[str, State]:
        """One step of each job; raises JobError.

        On a scheduler all run side by side. This machine takes one model at a time, which may need all of its device;
        tiny ones run side by side, for each keeps one core busy.
        """
        states: dict[str, State] = {}
        for role, job in jobs.items():
            states[role] = self.step(job)
            alone = self.backend.name == "local" and job.recipe.base.model != TINY
            if alone and states[role] is State.RUNNING:
                break
        return states

    def done(self, jobs: Mapping[str, Job]) -> bool:
        """One step of each, and whether all have succeeded. Raises JobError."""
        states = self.advance(jobs)
        return len(states) == len(jobs) and all(state is State.SUCCEEDED for state in states.values())

    def _known(self, key: str) -> _Known:
        return _of(self._log.read(), key)

    def _append(self, kind: str, job: Job, **more: Any) -> None:
        self._log.append({"kind": kind, "key": job.key, **more})


def results(workspace: Workspace, jobs: Mapping[str, Job]) -> dict[str, dict[str, Any]]:
    """What jobs that have succeeded left behind, by role. Raises JobError where one has not."""
    entries = Log(workspace.store, keys.FINETUNE_LOG).read()
    found = {}
    for role, job in jobs.items():
        result = _of(entries, job.key).result
        if result is None:
            raise JobError(f"job {job.name}: it has not succeeded yet. Run the fine-tune to its end.")
        found[role] = result
    return found


@dataclass(slots=True, kw_only=True)
class _Known:
    """What the log says of a key."""

    intents: int = 0
    runs: frozenset[str] = frozenset()  # that wrote the last intent, or found its job at work: they are told of its end
    at: str | None = None  # when it was written
    handle: str | None = None  # of the last intent's submission
    result: dict[str, Any] | None = None
    vanished: int = 0  # intents of the same run before the last, without an end


def _of(entries: Sequence[LogEntry], key: str) -> _Known:
    known = _Known()
    open_intent = False
    for entry in entries:
        body = entry.body
        if body.get("key") != key:
            continue
        if body["kind"] == "intent":
            known.vanished = known.vanished + 1 if open_intent and body["run"] in known.runs else 0
            known.intents += 1
            known.runs, known.at, known.handle, open_intent = frozenset([body["run"]]), body["at"], None, True
            known.result = None
        elif body["kind"] == "awaited":
            known.runs |= {body["run"]}
        elif body["kind"] == "submitted":
            known.handle = body["handle"]
        elif body["kind"] == "ended":
            open_intent = False
            known.result = body.get("result")
    return known


def _there(result: Mapping[str, Any]) -> bool:
    """Whether the checkpoint is still where the job left it; one behind a URL is taken at its word."""
    checkpoint = str(result["checkpoint"])
    return "://" in checkpoint or Path(checkpoint).exists()


def _failure(job: Job, state: State) -> str:
    how = {State.FAILED: "failed", State.CANCELLED: "was cancelled", State.UNKNOWN: "is gone"}[state]
    tail = "\n".join(f"  {text[:500]}" for text in log_tail(job.folder))
    return f"job {job.name} ({job.recipe.name}) {how}. Its log, {job.folder / 'log.txt'}, ends:\n{tail or '  (empty)'}"


def train(
    workspace: Workspace, jobs: Mapping[str, Job], run: str, progress: Progress | None = None
) -> dict[str, dict[str, Any]]:
    """Train all jobs to their end, and wait; gives their results. Ctrl-C leaves a job running: it is found again.

    Raises JobError.
    """
    progress = progress or Silent()
    settings, trainings = workspace.settings.finetune, Trainings(workspace, run)
    shown: dict[str, int] = {}
    poll = min(settings.poll_seconds, 1.0) if trainings.backend.name == "local" else settings.poll_seconds
    silent = 0  # looks in a row that the scheduler did not answer
    while True:
        try:
            done, silent = trainings.done(jobs), 0
        except SchedulerError as error:
            silent += 1
            if silent > _SILENT_LOOKS:
                raise
            progress.note(str(error))
            done = False
        for role, job in jobs.items():
            _show(progress, f"train {role}", job, shown)
        if done:
            return results(workspace, jobs)
        time.sleep(poll)


def _show(progress: Progress, name: str, job: Job, shown: dict[str, int]) -> None:
    if not (found := points(job.folder)):
        return
    last = found[-1]
    if name not in shown:
        shown[name] = 0
        progress.stage(name, last.steps or 0, "steps")
    if last.step > shown[name]:
        progress.advance(name, last.step - shown[name])
        shown[name] = last.step


def progress_lines(jobs: Mapping[str, Job]) -> dict[str, str]:
    """Where each job is, in a line: step, loss, learning rate, time left."""
    return {role: line(found[-1]) for role, job in jobs.items() if (found := points(job.folder))}
