"""A training job: all its files are rendered before it is submitted, and its key names all that decides its outcome.

The key is the fingerprint of the release's manifest, the recipe, the base model's revision, the trainer, the container
image's digest, and the selection of the data. A retry therefore finds the running job or its result, and any change
makes another job.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from taskgalaxy_ops.errors import JobError, SettingsError
from taskgalaxy_ops.extensions import TRAINERS
from taskgalaxy_ops.finetune import tiny
from taskgalaxy_ops.finetune.mixture import Part, base_part, release_part
from taskgalaxy_ops.finetune.recipes import Recipe
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.release.local_copy import ReleaseCopy

RENDER_VERSION = 1  # one more whenever the same order gives another job
LOG = "log.txt"
EXIT = "exit.json"
RESULT = "result.json"
OUTPUT = "output"  # the trainer's checkpoints; the last one is the job's
SCRIPT = "run.sh"
MANIFEST = "job.json"
CANCELLED = "cancelled"  # an empty file that marks a job as cancelled
BLANK = "data/blank.png"
PYTHON = "TASKGALAXY_PYTHON"  # environment variable: the interpreter that has this package where the job runs

_FORBIDDEN = re.compile(r"[\x00\n\r]")


@dataclass(frozen=True, kw_only=True)
class Order:
    """The description of a training from which `prepare` renders a job.

    release: None trains on the base data alone, which gives the baseline. blind: every image is replaced by one grey
    picture. only: samples (ids) of the release; None: its whole training split. excluded: images (sha256) that
    built-in base data may not hold. extra: further parts of the mixture, such as a study's format data. container: the
    digest of the image, if a container runs the job.
    """

    recipe: Recipe
    release: ReleaseCopy | None
    trainer: str | None = None  # None: the recipe's first
    blind: bool = False
    only: frozenset[str] | None = None
    seed: int | None = None  # None: the recipe's
    excluded: frozenset[str] = frozenset()
    extra: tuple[Part, ...] = ()
    container: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A complete job: its files, and the command that trains with them and runs in the job's folder."""

    key: str
    recipe: Recipe
    trainer: str
    release: str | None  # its version's name
    folder: Path
    command: tuple[str, ...]
    files: Mapping[str, bytes]  # by path within the folder
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name that every scheduler accepts; it contains the first 16 digits of the key."""
        return f"taskgalaxy-{self.key[:16]}"

    def write(self) -> None:
        """Write the job's files into its folder, the script last; an equal file is left alone."""
        for path, raw in {**self.files, SCRIPT: self.script().encode()}.items():
            file = self.folder / path
            if file.is_file() and file.read_bytes() == raw:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{file.name}.part")
            part.write_bytes(raw)
            part.replace(file)

    def script(self) -> str:
        """A shell script that runs the command, with its output in ``log.txt`` and its exit code in ``exit.json``."""
        variables = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(self.environment.items()))
        return (
            "#!/bin/sh\n"
            f"# {self.name}: {self.recipe.name}"
            f"{f' on {self.release}' if self.release else ' on its base data alone'}. Made by TaskGalaxy.\n"
            f"cd {shlex.quote(str(self.folder))} || exit 1\n"
            f"rm -f {EXIT} {RESULT}\n"
            f"{variables}"
            f"{shlex.join(self.command)} >>{LOG} 2>&1\n"
            "code=$?\n"
            f'echo "{{\\"code\\": $code}}" >{EXIT}.part && mv {EXIT}.part {EXIT}\n'
            "exit $code\n"
        )


class State(StrEnum):
    """The state of a job."""

    UNKNOWN = "unknown"  # the backend has no such job: it was never submitted, or vanished without a result
    RUNNING = "running"  # or queued
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TrainBackend(Protocol):
    """A place where jobs run. Any process may call any method at any time, for any job."""

    name: str

    def render(self, job: Job) -> Job:
        """The job with the backend's own files, such as a manifest; they may not change what is trained.

        The key does not cover these files.
        """

    def submit(self, job: Job) -> str:
        """Start the job unless it runs or has succeeded, and return its handle. Raises JobError."""

    def find(self, job: Job) -> str | None:
        """The handle of a job that was submitted under this key, even if the log has no entry of it; None: none was."""

    def state(self, job: Job, handle: str | None) -> State:
        """The job's state. Raises JobError where the backend cannot be asked."""

    def cancel(self, job: Job, handle: str | None) -> None:
        """Stop the job and all processes that it started; does nothing if it has ended."""


def folder_of(root: Path, key: str) -> Path:
    """The folder of a job."""
    return root / "jobs" / key[:32]


def prepare(order: Order, root: Path) -> Job:
    """Render an order: data files, configuration, command. Writes nothing. root: the setting ``finetune.folder``.

    Raises SettingsError (the recipe, trainer and data do not fit together), SourceError (the release has nothing to
    train on), DamageError (a file of the release is damaged).
    """
    recipe = order.recipe
    if order.seed is not None:
        recipe = recipe.model_copy(update={"seed": order.seed})
    trainer = order.trainer or recipe.trainers[0]
    if trainer not in recipe.trainers:
        raise SettingsError(
            f"recipe {recipe.name}: not for {trainer}. It is rendered for {', '.join(recipe.trainers)}."
        )
    renderer: Trainer = TRAINERS.get(trainer)
    parts = mixture(order, trainer)
    key = fingerprint(
        "finetune.job",
        {
            "version": RENDER_VERSION,
            "recipe": recipe.identity(trainer),
            "trainer": trainer,
            "trainer_version": TRAINERS.version(trainer),
            "base": base_revision(recipe),
            "data": [(part.name, part.identity, part.repeat) for part in parts],
            "blind": order.blind,
            "container": order.container,
        },
    )
    folder = folder_of(root.expanduser().resolve(), key)
    if _FORBIDDEN.search(str(folder)):
        raise SettingsError(f"finetune.folder {str(root)!r}: a path with line breaks cannot be used. Rename it.")
    rendered = renderer.render(recipe, parts, folder, blind=order.blind)
    release = order.release.name if order.release else None
    manifest = {
        "key": key,
        "recipe": recipe.model_dump(mode="json"),
        "trainer": trainer,
        "release": release,
        "release_manifest_sha256": order.release.identity if order.release else None,
        "blind": order.blind,
        "container": order.container,
        "mixture": list(map(_told, parts)),
        "command": list(rendered.command),
        "environment": dict(rendered.environment),
    }
    files = {**rendered.files, MANIFEST: json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False).encode()}
    if order.blind:
        files[BLANK] = _blank()
    return Job(
        key=key,
        recipe=recipe,
        trainer=trainer,
        release=release,
        folder=folder,
        command=rendered.command,
        files=files,
        environment=rendered.environment,
    )


def _told(part: Part) -> dict[str, Any]:
    """A part of the mixture, as the job's manifest has it."""
    told = {"name": part.name, "kind": part.kind, "rows": part.rows, "repeat": part.repeat, "identity": part.identity}
    return {**told, "left_out": dict(part.left_out)} if part.left_out else told


def load(root: Path, key: str) -> Job:
    """A job that was written earlier, without its files. Raises JobError where its manifest cannot be read."""
    folder = folder_of(root.expanduser().resolve(), key)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        recipe = Recipe.model_validate(manifest["recipe"])
        command, environment = tuple(manifest["command"]), manifest["environment"]
        return Job(
            key=manifest["key"],
            recipe=recipe,
            trainer=manifest["trainer"],
            release=manifest["release"],
            folder=folder,
            command=command,
            files={},
            environment=environment,
        )
    except (OSError, ValueError, KeyError) as error:
        raise JobError(
            f"job {key[:16]}: {folder / MANIFEST} cannot be read ({error}). Every worker must see finetune.folder."
        ) from error


def mixture(order: Order, trainer: str) -> list[Part]:
    """The parts of an order's mixture, the release first."""
    parts = [release_part(order.release, order.recipe, order.only)] if order.release else []
    chosen: Trainer = TRAINERS.get(trainer)
    parts += [base_part(data, order.excluded, read=chosen.one_file) for data in order.recipe.base_data]
    parts += order.extra
    if not parts:
        raise SettingsError(
            f"recipe {order.recipe.name}: without a release and base data there is nothing to train on."
        )
    return parts


def base_revision(recipe: Recipe) -> str:
    """An identity of the weights that training starts from."""
    if recipe.base.model == tiny.TINY:
        return tiny.revision(recipe.seed)
    return fingerprint("finetune.base", recipe.base.model_dump(mode="json", exclude={"published"}))


@dataclass(frozen=True, slots=True)
class Rendered:
    """The files, command and environment that a trainer renders for a job."""

    command: tuple[str, ...]
    files: Mapping[str, bytes]
    environment: Mapping[str, str] = field(default_factory=dict)


class Renderer(Protocol):
    """How a trainer's files and command follow from a recipe."""

    def __call__(self, recipe: Recipe, parts: list[Part], folder: Path, *, blind: bool) -> Rendered:
        """``folder``: the job's, an absolute path, in which the command runs. Raises SettingsError for a recipe that
        the trainer cannot follow."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """What the registry of trainers holds under a name."""

    render: Renderer
    one_file: bool = True  # it takes one data file, so that all of base_data is read here; False: it reads them itself
    version: str | None = None  # of a package's trainer: part of a job's key


def exit_state(folder: Path) -> State | None:
    """SUCCEEDED or FAILED, by the exit code of the job's script; None: it has not ended."""
    try:
        code = json.loads((folder / EXIT).read_text(encoding="utf-8"))["code"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return State.SUCCEEDED if code == 0 else State.FAILED


def result_of(folder: Path) -> dict[str, Any]:
    """The result of a job that succeeded: ``checkpoint`` and, if the trainer wrote them, losses, steps, seconds."""
    written: Any = {}
    with contextlib.suppress(OSError, ValueError):
        written = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return {"checkpoint": str(folder / OUTPUT), **(written if isinstance(written, dict) else {})}


def log_tail(folder: Path, lines: int = 20) -> list[str]:
    """The last lines of what a job printed."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 200 * lines))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    # A progress bar rewrites its line after a carriage return: only the last text was visible.
    return [line.rpartition("\r")[2] for line in text.splitlines() if line.strip()][-lines:]


def _blank() -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 64), (127, 127, 127)).save(out, "PNG")
    return out.getvalue()
