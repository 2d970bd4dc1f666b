"""Recipes: how a model is trained, in YAML, with the hyper-parameters that its makers published.

A recipe names no trainer's flags: ``trainers/`` renders those from it. Recipes that ship lie in ``recipes/``; a user's
own is given by its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.extensions import BASE_LAYOUTS, TRAINERS
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.settings import Strict, Variant, known, read_yaml, validated

_SHIPPED = Path(__file__).with_name("recipes")

TrainerName = Annotated[str, known(TRAINERS), Field(examples=list(TRAINERS.shipped))]


class BaseModel(Strict):
    """What is trained."""

    model: str = Field(min_length=1, description="hub name or path; 'tiny': made from a configuration")
    revision: str | None = Field(None, description="commit of the hub, or whatever names the weights: part of the key")
    language_model: str | None = Field(None, description="where model is a vision-language one that is put together")
    vision_tower: str | None = None
    projector: str | None = Field(None, description="the pre-trained projector's weights")
    published: str | None = Field(None, description="the checkpoint that its makers trained on base_data alone")


class BaseData(Strict):
    """The model's own fine-tuning data, which a release is mixed with."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,60}$")
    annotations: str = Field(min_length=1, description="a file of the layout, or builtin:easy-vqa")
    layout: Annotated[str, known(BASE_LAYOUTS)] | None = Field(
        None,
        exclude_if=lambda value: value is None,  # it came later, and changes no key
        description="of the file; rows are checked, those that cannot be used left out; null: LLaVA's, unchecked",
    )
    images: str = Field("", description="folder of its images")
    revision: str | None = Field(None, description="what names its content: part of the key")
    rows: int | None = Field(None, ge=1, description="how many it holds, or builtin: how many are taken")
    repeat: float = Field(1.0, gt=0, le=100, description="how often it is seen in an epoch")


class Lora(Strict):
    """Low-rank adapters (Hu et al., 2021) instead of all weights."""

    r: int = Field(128, ge=1)
    alpha: int = Field(256, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class Recipe(Strict):
    """How a model is trained."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,60}$")
    about: str = ""
    trainers: tuple[TrainerName, ...] = Field(
        min_length=1, description="that it can be rendered for; the first by default"
    )
    base: BaseModel
    base_data: tuple[BaseData, ...] = ()
    release_repeat: float = Field(1.0, gt=0, le=100, description="how often the release is seen in an epoch")
    variants: tuple[Variant, ...] | None = Field(None, min_length=1, description="of the release; null: all")
    lora: Lora | None = Field(None, description="null: all weights but the frozen")
    freeze_vision: bool = True
    epochs: float = Field(1.0, gt=0)
    learning_rate: float = Field(gt=0)
    projector_learning_rate: float | None = Field(None, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    global_batch: int = Field(ge=1, description="samples a step, over all devices")
    device_batch: int = Field(ge=1, description="samples a device holds at once")
    devices: int = Field(1, ge=1, description="GPUs (local and tiny: 1, the CPU)")
    max_length: int = Field(2048, ge=16, description="tokens")
    precision: Literal["bf16", "fp32"] = "bf16"
    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="DeepSpeed's ZeRO; 0: none")
    gradient_checkpointing: bool = True
    pad_to_square: bool = True
    projector_type: str = "mlp2x_gelu"
    vision_layer: int = Field(-2, description="whose features go to the projector")
    template: dict[str, str] = Field(default={}, description="the conversation's name in each trainer that needs one")
    seed: int = Field(0, ge=0)
    blind_control: bool = Field(False, description="train once more with grey images: what is learnt without seeing")

    @model_validator(mode="after")
    def _adds_up(self) -> Recipe:
        if self.global_batch % (self.device_batch * self.devices):
            raise ValueError(
                f"global_batch is {self.global_batch}, no multiple of device_batch × devices = "
                f"{self.device_batch} × {self.devices}: change one of them"
            )
        names = [data.name for data in self.base_data]
        if len(set(names)) != len(names):
            raise ValueError(f"base_data need different names, not {names}")
        return self

    @property
    def accumulation(self) -> int:
        """Backward passes in one optimizer step."""
        return self.global_batch // (self.device_batch * self.devices)

    def identity(self, trainer: str) -> str:
        """Fingerprint of all fields that decide what this trainer trains."""
        fields = self.model_dump(mode="json", exclude={"about", "blind_control", "trainers", "template", "base"})
        base = self.base.model_dump(mode="json", exclude={"published"})
        return fingerprint("recipe", {**fields, "base": base, "template": self.template.get(trainer)})


def shipped() -> list[str]:
    """The names of the recipes that ship."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or one of the user's by path. Raises SettingsError if it is missing or invalid."""
    file = _SHIPPED / f"{name}.yaml" if name in shipped() else Path(name).expanduser()
    if not file.is_file():
        raise SettingsError(f"recipe {name!r}: no such file, and none that ships: {', '.join(shipped())}.")
    return validated(Recipe, read_yaml(file, "recipe"), f"recipe {name}")
