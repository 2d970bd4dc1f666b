"""Fine-tunes of a store: render their jobs, submit and follow them, and record what becomes of each.

The store's log ``finetune/log`` gets ``{"kind": "intent", "key", "run", …}`` before a job is submitted, ``submitted``
with its handle afterwards, and ``ended`` with its result. A later process, also on another day, finds the job by its
key, and does not start a job that runs or has succeeded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import JobError, SchedulerError
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
from taskgalaxy_ops.release.releases_log import chosen
from taskgalaxy_ops.settings import FinetuneSettings, validated
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.workspace import Workspace

BEFORE, AFTER, BLIND = "before", "after", "blind"
_INTENT_SECONDS = 30.0  # after this time without a submission, the process that wrote an intent counts as dead
_MAX_SILENT_POLLS = 20
_VANISHED = 3  # how often a job may vanish without an end before this is an error


@dataclass(frozen=True)
class Tuning:
    """A fine-tune: the local copy of a release, and the job of each role.

    The job ``before`` is missing if the recipe's makers published that checkpoint; ``blind`` if the recipe has no blind
    control.
    """

    recipe: Recipe
    release: Published
    copy: ReleaseCopy
    jobs: Mapping[str, Job]  # by role, in the order in which they are trained

    @property
    def published(self) -> str | None:
        """The published checkpoint that is scored as ``before`` if no job trains one."""
        return None if BEFORE in self.jobs else self.recipe.base.published


def chosen_release(workspace: Workspace, name: str | None) -> Published:
    """The release of this name (v000001), or the latest. Raises SourceError if there is none."""
    return chosen(workspace, name, "fine-tune")


def root(workspace: Workspace) -> Path:
    """``finetune.folder``, absolute."""
    return Path(workspace.settings.finetune.folder).expanduser().resolve()


def on_backend(workspace: Workspace, backend: str | None) -> Workspace:
    """The workspace with this backend instead of the settings' own (None: unchanged). Raises SettingsError."""
    if backend is None:
        return workspace
    wanted = {**workspace.settings.finetune.model_dump(mode="json"), "backend": backend}
    chosen = validated(FinetuneSettings, wanted, f"backend {backend}")
    return workspace.with_settings(finetune=chosen)


def release_copy(workspace: Workspace, name: str | None) -> ReleaseCopy:
    """Fetch a release (None: the latest) and check the copy. Raises SourceError (no such release), DamageError."""
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
    chosen_version = chosen_release(workspace, release)
    copy = release_copy(workspace, chosen_version.name)
    check_licences(copy, settings.licences)
    container = settings.kubernetes.image if settings.backend == "kubernetes" and settings.kubernetes else None
    excluded = known_images(workspace, copy)

    def job(release: ReleaseCopy | None, blind: bool = False) -> Job:
        order = Order(
            recipe=chosen, release=release, trainer=trainer, blind=blind, excluded=excluded, container=container
        )
        return prepare(order, root(workspace))

    jobs = {}
    # LLaVA's trainer starts from the same weights as the published checkpoint, which is therefore the baseline. Other
    # trainers continue from that checkpoint: their baseline must be trained on the base data once more.
    if not chosen.base.published or (trainer or chosen.trainers[0]) != "llava":
        jobs[BEFORE] = job(None)
    jobs[AFTER] = job(copy)
    if chosen.blind_control:
        jobs[BLIND] = job(copy, blind=True)
    return Tuning(chosen, chosen_version, copy, jobs)


def known_images(workspace: Workspace, copy: ReleaseCopy) -> frozenset[str]:
    """Images (sha256) that a source claims or the release holds; neither base data nor a benchmark may contain them."""
    rows = copy.table(["train", "validation", "test"], ["image_id", "further_image_ids"])
    held = {image for row in rows for image in (row["image_id"], *(row.get("further_image_ids") or ()))}
    return frozenset(held | {claim.image for claim in workspace.registry.claims()})


def written(workspace: Workspace, release: str, keys_: Mapping[str, str]) -> Tuning:
    """A fine-tune whose jobs were written earlier. keys_: the jobs' keys by role.

    Raises JobError where a job cannot be read, SourceError where there is no such release.
    """
    chosen_version = chosen_release(workspace, release)
    jobs = {role: load(root(workspace), key) for role, key in keys_.items()}
    return Tuning(
        jobs[AFTER].recipe, chosen_version, ReleaseCopy(root(workspace) / "releases" / chosen_version.name), jobs
    )


class Trainings:
    """Submits and follows the jobs of a store on one backend.

    run: a name of this attempt; a job that failed in it is not submitted again in it.
    """

    def __init__(self, workspace: Workspace, run: str, backend: TrainBackend | None = None) -> None:
        self._hours = workspace.settings.finetune.hours
        self._log = Log(workspace.store, keys.FINETUNE_LOG)
        self._run = run
        self.backend = backend or open_backend(workspace.settings.finetune)

    def step(self, job: Job) -> State:
        """Submit a job unless it runs or has succeeded, record in the log what became of it, and return its state.

        Raises JobError, with the last lines of the job's log, if it failed or was cancelled in this run, took longer
        than ``finetune.hours``, or vanished repeatedly.
        """
        job = self.backend.render(job)
        known = self._known(job.key)
        if known.result is not None and _checkpoint_exists(known.result):
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
        of_this_run = self._run in known.runs
        if state is State.SUCCEEDED and _checkpoint_exists(result := result_of(job.folder)):
            self._append("ended", job, state=str(state), result=result)
            return state
        if of_this_run and state is State.SUCCEEDED:
            self._append("ended", job, state=str(State.FAILED))
            raise JobError(
                f"job {job.name}: it ended well, but there is no checkpoint at {result['checkpoint']}. Run it again; "
                "if the scheduler still has the job, delete it there first."
            )
        if of_this_run and state in {State.FAILED, State.CANCELLED}:
            self._append("ended", job, state=str(state))
            raise JobError(_failure(job, state))
        if known.vanished >= _VANISHED:
            raise JobError(f"{_failure(job, State.UNKNOWN)}\nIt vanished {known.vanished} times without an end.")
        if state is State.SUCCEEDED:  # but its checkpoint is gone: it is trained again
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
            # Another process wrote its intent first, and will submit the job; if it died before that, we submit it.
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
        """Stop a job and record that; False if it was not running."""
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
        """Write the jobs' files, submit or cancel the jobs if asked to, and return each one's state.

        Returns by role: name, key, folder and state of the job. Raises JobError.
        """
        summaries = {}
        states = self.advance(jobs) if submit else {}
        for role, job in jobs.items():
            if cancel:
                state = State.CANCELLED if self.cancel(job) else self._state(job)
            elif submit:
                state = states.get(role, State.UNKNOWN)
            else:
                self.backend.render(job).write()
                state = self._state(job)
            summaries[role] = {"name": job.name, "key": job.key, "folder": str(job.folder), "state": str(state)}
        return summaries

    def _state(self, job: Job) -> State:
        known = self._known(job.key)
        return self.backend.state(job, known.handle) if known.intents else State.UNKNOWN

    def advance(self, jobs: Mapping[str, Job]) -> dict[str, State]:
        """Call `step` for each job, and return the states by role. Raises JobError.

        A scheduler gets all at once. On this machine a job is started only when the one before it has succeeded,
        because it may need the whole device; tiny ones run side by side, because each uses one core only.
        """
        states: dict[str, State] = {}
        for role, job in jobs.items():
            states[role] = self.step(job)
            alone = self.backend.name == "local" and job.recipe.base.model != TINY
            if alone and states[role] is State.RUNNING:
                break
        return states

    def done(self, jobs: Mapping[str, Job]) -> bool:
        """Call `step` for each job, and return whether all have succeeded. Raises JobError."""
        states = self.advance(jobs)
        return len(states) == len(jobs) and all(state is State.SUCCEEDED for state in states.values())

    def _known(self, key: str) -> _Known:
        return _of(self._log.read(), key)

    def _append(self, kind: str, job: Job, **more: Any) -> None:
        self._log.append({"kind": kind, "key": job.key, **more})


def results(workspace: Workspace, jobs: Mapping[str, Job]) -> dict[str, dict[str, Any]]:
    """The results of jobs that have succeeded, by role. Raises JobError if one has not succeeded."""
    entries = Log(workspace.store, keys.FINETUNE_LOG).read()
    by_role = {}
    for role, job in jobs.items():
        result = _of(entries, job.key).result
        if result is None:
            raise JobError(f"job {job.name}: it has not succeeded yet. Run the fine-tune to its end.")
        by_role[role] = result
    return by_role


@dataclass(slots=True, kw_only=True)
class _Known:
    """What the log records of a job's key."""

    intents: int = 0
    runs: frozenset[str] = frozenset()  # runs that wrote the last intent, or saw its job running: its failure is theirs
    at: str | None = None  # when the last intent was written
    handle: str | None = None  # of the last intent's submission
    result: dict[str, Any] | None = None
    vanished: int = 0  # earlier intents of the same run that have no end


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


def _checkpoint_exists(result: Mapping[str, Any]) -> bool:
    """Whether the checkpoint is still where the job left it; of one behind a URL this is assumed."""
    checkpoint = str(result["checkpoint"])
    return "://" in checkpoint or Path(checkpoint).exists()


def _failure(job: Job, state: State) -> str:
    how = {State.FAILED: "failed", State.CANCELLED: "was cancelled", State.UNKNOWN: "is gone"}[state]
    tail = "\n".join(f"  {text[:500]}" for text in log_tail(job.folder))
    return f"job {job.name} ({job.recipe.name}) {how}. Its log, {job.folder / 'log.txt'}, ends:\n{tail or '  (empty)'}"


def train(
    workspace: Workspace, jobs: Mapping[str, Job], run: str, progress: Progress | None = None
) -> dict[str, dict[str, Any]]:
    """Train all jobs, wait for their end, and return their results by role.

    Ctrl-C leaves a job running; the next call finds it. Raises JobError where a job fails.
    """
    progress = progress or Silent()
    settings, trainings = workspace.settings.finetune, Trainings(workspace, run)
    shown: dict[str, int] = {}
    poll = min(settings.poll_seconds, 1.0) if trainings.backend.name == "local" else settings.poll_seconds
    silent = 0  # polls in a row that the scheduler did not answer
    while True:
        try:
            done, silent = trainings.done(jobs), 0
        except SchedulerError as error:
            silent += 1
            if silent > _MAX_SILENT_POLLS:
                raise
            progress.note(str(error))
            done = False
        for role, job in jobs.items():
            _show(progress, f"train {role}", job, shown)
        if done:
            return results(workspace, jobs)
        time.sleep(poll)


def _show(progress: Progress, name: str, job: Job, shown: dict[str, int]) -> None:
    if not (logged := points(job.folder)):
        return
    last = logged[-1]
    if name not in shown:
        shown[name] = 0
        progress.stage(name, last.steps or 0, "steps")
    if last.step > shown[name]:
        progress.advance(name, last.step - shown[name])
        shown[name] = last.step


def progress_lines(jobs: Mapping[str, Job]) -> dict[str, str]:
    """A line for each job that has logged a step: step, loss, learning rate, time left."""
    return {role: line(logged[-1]) for role, job in jobs.items() if (logged := points(job.folder))}
