"""What can be added by name: sources, encoders, question forms, release formats, trainers, layouts of base data.

Each kind has a registry: what ships is named here by place, ``module:attribute``, and is imported once it is used.
Another installed package adds to it by an entry point of the registry's group (docs/extending.md). Packages are looked
at only where a name is none of ours, or where all names are asked for: reading what is installed takes a while.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from taskgalaxy_ops.errors import EncoderError, SettingsError, SourceError, TaskGalaxyError

Extension = TypeVar("Extension")

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,60}")  # it becomes part of keys, of paths and of a source's location


@dataclass(frozen=True, slots=True)
class Brought:
    """A name that an installed package brings."""

    entry: EntryPoint
    package: str  # its name and version

    def __str__(self) -> str:
        return f"{self.entry.name} ({self.package})"


@dataclass(kw_only=True)
class Registry(Generic[Extension]):
    """All extensions of one kind, by name: those that ship, and those that installed packages bring.

    A name that ships always means what ships: a package that claims it too is ignored, and named by ``problems``.
    """

    group: str  # of the entry points
    what: str  # one of them, in words
    shipped: Mapping[str, str]  # where each lies: "module:attribute"
    error: type[TaskGalaxyError]
    versioned: bool = True  # whether a package's must declare a version
    _loaded: dict[str, Extension] = field(default_factory=dict, init=False)
    _brought: dict[str, list[Brought]] | None = field(default=None, init=False)

    def names(self) -> list[str]:
        """Every name, what ships first. Loads nothing."""
        return [*self.shipped, *sorted(self._packages().keys() - self.shipped.keys())]

    def knows(self, name: str) -> bool:
        """Whether there is one of this name. Loads nothing."""
        return name in self.shipped or name in self._packages()

    def told(self) -> str:
        """What a name should be, and which package brings what does not ship. Loads nothing."""
        *others, last = map(repr, self.names())
        return f"{', '.join(others)}{' or ' if others else ''}{last}{self._packaged()}"

    def get(self, name: str) -> Extension:
        """The extension of this name, imported.

        Raises ``error`` where the name is unknown, where two packages bring it, or where it cannot be loaded.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def version(self, name: str) -> str | None:
        """The version that a package's extension declares, which goes into the keys of what it decides.

        None for what ships: its version is the code's. Raises ``error`` where a package's declares none.
        """
        if name in self.shipped:
            return None
        declared = getattr(self.get(name), "version", None)
        if declared is None or not str(declared):
            raise self.error(
                f"{self.what} {name!r} declares no version.\n"
                f"  Give {self._packages()[name][0].entry.value} a `version`: another whenever it gives something else."
            )
        return str(declared)

    def versions(self, names: Iterable[str]) -> dict[str, str] | None:
        """The declared versions, by name, of those that packages bring; None where all ship."""
        return {name: version for name in sorted(names) if (version := self.version(name)) is not None} or None

    def problems(self) -> list[str]:
        """What is wrong with what packages bring: wrong names, and what cannot be loaded. Loads all."""
        found = []
        for entry in entry_points(group=self.group):
            if not _NAME.fullmatch(entry.name):
                found.append(f"{self.what} {entry.name!r} of {_package(entry)} is ignored: {_NAME.pattern} is a name.")
            elif entry.name in self.shipped:
                found.append(f"{self.what} {entry.name!r} of {_package(entry)} is ignored: this name is what ships.")
        for name in sorted(self._packages().keys() - self.shipped.keys()):
            try:
                self.version(name) if self.versioned else self.get(name)
            except self.error as error:
                found.append(str(error).replace("\n ", ""))
        return found

    def brought(self) -> list[str]:
        """What packages bring, each with its package. Loads nothing."""
        packages = self._packages()
        return [str(each) for name in sorted(packages.keys() - self.shipped.keys()) for each in packages[name]]

    def _load(self, name: str) -> Extension:
        if name in self.shipped:
            module, _, attribute = self.shipped[name].partition(":")
            shipped: Extension = getattr(import_module(module), attribute)
            return shipped
        brought = self._packages().get(name)
        if not brought:
            raise self.error(self._unknown(name))
        if len(brought) > 1:
            raise self.error(
                f"{self.what} {name!r} is brought by more than one installed package: "
                f"{', '.join(each.package for each in brought)}.\n  Uninstall all but one of them."
            )
        try:
            loaded: Extension = brought[0].entry.load()
        except Exception as error:
            raise self.error(
                f"{self.what} {name!r} of {brought[0].package} cannot be loaded ({error!r}).\n"
                f"  Mend or uninstall that package; its entry point names {brought[0].entry.value}."
            ) from error
        return loaded

    def _packages(self) -> dict[str, list[Brought]]:
        if self._brought is None:
            self._brought = {}
            for entry in sorted(entry_points(group=self.group), key=lambda each: (each.name, each.value)):
                if _NAME.fullmatch(entry.name):
                    self._brought.setdefault(entry.name, []).append(Brought(entry, _package(entry)))
        return self._brought

    def _unknown(self, name: str) -> str:
        return f"{self.what} {name!r} is unknown.\n  Known {self.what}s: {', '.join(self.names())}{self._packaged()}."

    def _packaged(self) -> str:
        """Which package brings what does not ship; "" where all of it ships."""
        brought = self.brought()
        return f" (installed packages bring {', '.join(brought)})" if brought else ""


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"


LANGUAGES: Mapping[str, str] = {
    "ar": "Arabic",
    "de": "German",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}  # that questions can be written in beside English: BCP 47 tag, English name


class QuestionForms(Registry[Any]):
    """The question forms. One's name with ``-`` and the tag of a language is that form in it: ``plain-de``."""

    def split(self, name: str) -> tuple[str, str]:
        """The form and the language that a name means; "": English."""
        form, _, language = name.rpartition("-")
        return (form, language) if not super().knows(name) and form and language in LANGUAGES else (name, "")

    def knows(self, name: str) -> bool:
        return super().knows(self.split(name)[0])

    def told(self) -> str:
        return f"{super().told()}, or one of them in a language, such as 'plain-de' ({', '.join(LANGUAGES)})"

    def version(self, name: str) -> str | None:
        return super().version(self.split(name)[0])

    def _load(self, name: str) -> Any:
        form, language = self.split(name)
        if not language:
            return super()._load(name)
        found = self.get(form)
        if found.languages is not None and language not in found.languages:
            others = ", ".join(f"{form}-{each}" for each in sorted(found.languages)) or "none"
            raise self.error(
                f"{self.what} {form!r} has words of its own, and none in {LANGUAGES[language]}: {name!r} cannot be "
                f"written.\n  In other languages there are {others}."
            )
        return replace(found, language=language)


_HERE = "taskgalaxy_ops"

SOURCES: Registry[Any] = Registry(
    group="taskgalaxy.sources",
    what="source kind",
    shipped={
        "file": f"{_HERE}.sources.kinds.folder:opened",
        "s3": f"{_HERE}.sources.kinds.bucket:BucketSource",
        "builtin": f"{_HERE}.sources.kinds.shipped:opened",
        "webdataset": f"{_HERE}.sources.kinds.webdataset:WebDatasetSource",
        "parquet": f"{_HERE}.sources.kinds.tables:ParquetSource",
        "arrow": f"{_HERE}.sources.kinds.tables:ArrowSource",
        "hf": f"{_HERE}.sources.kinds.hub:opened",
        "lance": f"{_HERE}.sources.kinds.lance:LanceSource",
        "documents": f"{_HERE}.sources.kinds.documents:DocumentSource",
        "coco": f"{_HERE}.sources.kinds.annotations:CocoSource",
        "visual_genome": f"{_HERE}.sources.kinds.annotations:VisualGenomeSource",
        "llava": f"{_HERE}.sources.kinds.annotations:ConversationsSource",
        "sharegpt": f"{_HERE}.sources.kinds.annotations:ConversationsSource",
    },
    error=SourceError,
    versioned=False,  # it decides nothing: an image is its bytes
)
ENCODERS: Registry[Any] = Registry(
    group="taskgalaxy.encoders",
    what="encoder",
    shipped={
        "conse": f"{_HERE}.models.encoders.conse:opened",
        "open_clip": f"{_HERE}.models.encoders.open_clip:opened",
        "transformers": f"{_HERE}.models.encoders.transformers:opened",
    },
    error=EncoderError,
    versioned=False,  # its identity says what it is
)
QUESTION_FORMS = QuestionForms(
    group="taskgalaxy.question_forms",
    what="question form",
    shipped={
        "plain": f"{_HERE}.generation.forms.plain:PLAIN",
        "chain_of_thought": f"{_HERE}.generation.forms.chain_of_thought:CHAIN_OF_THOUGHT",
        "multiple_choice": f"{_HERE}.generation.forms.multiple_choice:MULTIPLE_CHOICE",
        "yes_no": f"{_HERE}.generation.forms.yes_no:YES_NO",
        "unanswerable": f"{_HERE}.generation.forms.unanswerable:UNANSWERABLE",
        "grounded": f"{_HERE}.generation.forms.grounded:GROUNDED",
        "long_description": f"{_HERE}.generation.forms.long_description:LONG_DESCRIPTION",
        "multi_turn": f"{_HERE}.generation.forms.multi_turn:MULTI_TURN",
        "several_images": f"{_HERE}.generation.forms.several_images:SEVERAL_IMAGES",
    },
    error=SettingsError,
)
RELEASE_FORMATS: Registry[Any] = Registry(
    group="taskgalaxy.release_formats",
    what="release format",
    shipped={
        "llava": f"{_HERE}.release.formats.llava:LLAVA",
        "parquet": f"{_HERE}.release.formats.parquet:PARQUET",
        "messages": f"{_HERE}.release.formats.messages:MESSAGES",
        "prompt_completion": f"{_HERE}.release.formats.messages:PROMPT_COMPLETION",
        "sharegpt": f"{_HERE}.release.formats.sharegpt:SHAREGPT",
        "swift": f"{_HERE}.release.formats.swift:SWIFT",
        "webdataset": f"{_HERE}.release.formats.webdataset:WEBDATASET",
        "preference": f"{_HERE}.release.formats.preference:PREFERENCE",
        "verifiable": f"{_HERE}.release.formats.verifiable:VERIFIABLE",
    },
    error=SettingsError,
)
ALWAYS_RELEASED = ("llava", "parquet")  # training, take-downs and `explain` read them
TRAINERS: Registry[Any] = Registry(
    group="taskgalaxy.trainers",
    what="trainer",
    shipped={
        "trl": f"{_HERE}.finetune.trainers.trl:TRL",
        "llava": f"{_HERE}.finetune.trainers.llava:LLAVA",
        "internvl": f"{_HERE}.finetune.trainers.internvl:INTERNVL",
        "llamafactory": f"{_HERE}.finetune.trainers.llamafactory:LLAMAFACTORY",
        "ms-swift": f"{_HERE}.finetune.trainers.swift:SWIFT",
    },
    error=SettingsError,
)
BASE_LAYOUTS: Registry[Any] = Registry(
    group="taskgalaxy.base_layouts",
    what="layout of base data",
    shipped={
        "llava": f"{_HERE}.release.base_data.conversations:LLAVA",
        "sharegpt": f"{_HERE}.release.base_data.conversations:LLAVA",  # the same, with `images`
        "onevision": f"{_HERE}.release.base_data.conversations:ONEVISION",
        "messages": f"{_HERE}.release.base_data.messages:MESSAGES",
    },
    error=SettingsError,
)
REGISTRIES = (SOURCES, ENCODERS, QUESTION_FORMS, RELEASE_FORMATS, TRAINERS, BASE_LAYOUTS)
