"""A mixture as its YAML file describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from taskgalaxy_ops.extensions import BASE_LAYOUTS
from taskgalaxy_ops.settings import Strict, known, read_yaml, validated

LATEST = "latest"


class MixturePart(Strict):
    """One part of a mixture: a release's training split, or base data."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,60}$", description="what rows of it say as their `source`")
    release: str | None = Field(None, description="a release of the store, such as v000002, or latest")
    files: tuple[str, ...] = Field((), description="base data: its files, or folders of them")
    layout: Annotated[str, known(BASE_LAYOUTS)] = "llava"
    images: str | None = Field(None, description="base data: the folder from which rows name their images")
    follow_links: bool = Field(False, description="links in that folder may lead out of it")
    licence: str | None = Field(None, min_length=1, description="base data: as its makers state it; null: unknown")
    weight: float = Field(1.0, gt=0, le=1e9, description="its share of the mixture, against the other parts'")
    repeat: bool = Field(False, description="take rows again where it has fewer than its share")

    @model_validator(mode="after")
    def _is_one(self) -> MixturePart:
        if (self.release is None) == (not self.files):
            raise ValueError("a part is either a `release` or `files` of base data: name one of them")
        odd = {"layout", "images", "follow_links", "licence"} & self.model_fields_set
        if self.release is not None and odd:
            raise ValueError(f"{', '.join(sorted(odd))} is for base data: a release says it of itself")
        return self


class Mixture(Strict):
    """What is mixed."""

    samples: int | None = Field(
        None,
        ge=1,
        description="in all; null: as many as the weights allow until a part that is not repeated is used up",
    )
    parts: tuple[MixturePart, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _adds_up(self) -> Mixture:
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise ValueError(f"parts need different names, not {', '.join(names)}")
        if self.samples is None and all(part.repeat for part in self.parts):
            raise ValueError("all parts are repeated, so that nothing ends the mixture: set samples")
        return self


def load_mixture(path: Path) -> Mixture:
    """A mixture from its file. Raises SettingsError, which names each wrong field, its value and the fix."""
    return validated(Mixture, read_yaml(path, "mixture"), f"mixture {path}")
