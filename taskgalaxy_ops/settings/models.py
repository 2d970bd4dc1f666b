"""Settings of a model: where it is, which requests it accepts, and what it costs."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from taskgalaxy_ops.settings.base import Name, Strict


def _unset(value: object) -> bool:
    """Leaves a setting that came later out of what is kept and hashed, so that it changes nothing made before it."""
    return value is None


class Price(Strict):
    """A model's price, in USD a million tokens."""

    input: float = Field(0.0, ge=0, description="images' tokens included")
    output: float = Field(0.0, ge=0, description="reasoning included")
    cached: float | None = Field(None, ge=0, description="input that the provider had in its cache; null: as any input")
    batch_discount: float = Field(0.5, ge=0, le=1, description="what a batch takes off")


class InProcessSettings(Strict):
    """How a model that runs in this process is loaded and used. These settings change no data."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|spread|cpu|mps|cuda(:\d+)?)$",
        description="auto: a GPU if there is one; spread: over all GPUs",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="auto: as the weights are")
    batch: int = Field(8, ge=1, le=512, description="requests answered together; halved where memory runs out")
    wait_seconds: float = Field(0.05, ge=0, le=10, description="the longest that a batch waits to be filled")
    trust_remote_code: bool = Field(False, description="runs Python that comes with the weights")


IN_PROCESS = "transformers:"
_OURS = {"model", "messages", "stream", "n", "response_format", "temperature", "max_tokens", "max_completion_tokens"}
MIN_SIDE = 28  # pixels: a patch of current models' image processors, which fail below it


class Model(Strict):
    """A chat model behind an OpenAI-compatible URL, or in this process."""

    name: Name = Field(description="the model's name in the data")
    base_url: str = Field(
        pattern=rf"^(https?://|{IN_PROCESS})", description="e.g. https://api.openai.com/v1, or transformers:hub/id"
    )
    model: str = Field(min_length=1)
    revision: str | None = Field(
        None, description="change it when the weights behind the name changed; of a hub's model in process: its commit"
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY", pattern="^[A-Za-z_][A-Za-z0-9_]*$", description="environment variable that holds the key"
    )
    price: Price | None = Field(
        None, description="null: as the provider lists it; nothing where the model is simulated or of your own network"
    )
    list_price: Price | None = Field(
        None, description="what the same tokens cost at another provider; for comparison only"
    )
    temperature: float | None = Field(0.0, ge=0, le=2, description="null: not sent; some models take none")
    top_p: float | None = Field(None, gt=0, le=1, description="null: not sent", exclude_if=_unset)
    seed: int | None = Field(None, description="null: not sent", exclude_if=_unset)
    stop: tuple[str, ...] | None = Field(
        None, min_length=1, max_length=8, description="null: not sent", exclude_if=_unset
    )
    reasoning_effort: str | None = Field(
        None, min_length=1, max_length=20, description="e.g. low; null: not sent", exclude_if=_unset
    )
    extra_body: dict[str, Any] | None = Field(
        None, description="further fields of each request, as this server takes them", exclude_if=_unset
    )
    headers: dict[str, str] | None = Field(
        None,
        description="further headers of each request; ${NAME} stands for the environment variable NAME",
        exclude_if=_unset,
    )
    max_tokens: int = Field(2000, ge=16)
    room_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="the name under which max_tokens is sent; newer OpenAI models take the other"
    )
    concurrency: int = Field(
        64, ge=1, le=1024, description="requests in flight at most, of all workers together; fewer where it says 429"
    )
    requests_a_minute: float | None = Field(None, gt=0, description="null: what the provider lets through")
    tokens_a_minute: float | None = Field(None, gt=0, description="null: what the provider lets through")
    timeout_seconds: float = Field(120.0, gt=0, description="for a reply of max_tokens; longer for one with more room")
    patience_seconds: float = Field(
        1800.0,
        ge=0,
        description="how long in all, in Airflow too, a model that serves nothing (it loads, or is away) is waited for "
        "before a run goes on without it",
        exclude_if=lambda seconds: seconds == 1800.0,
    )
    retries: int = Field(6, ge=0, description="further tries of a request that a model fails while it serves others")
    repairs: int = Field(3, ge=0, description="further tries after a malformed reply")
    structured: Literal["json_schema", "json_object", "text"] = "json_schema"
    mode: Literal["chat", "batch"] = Field(
        "chat", description="batch: through the provider's Batch API, within a day and for less"
    )
    image_side: int = Field(1024, ge=64, le=8192, description="pixels, the longer side, as sent")
    image_quality: int = Field(90, ge=1, le=100, description="JPEG quality, as sent")
    # Left out of what is kept and hashed where it is the default: it came later, and is in the keys of those
    # images alone whose picture it changes.
    image_min_side: int = Field(
        MIN_SIDE,
        ge=1,
        le=512,
        description="pixels, the shorter side, as sent: an image with a shorter one is scaled up, or gets white "
        "margins where it would be too long; 1: sent as thin as it is",
        exclude_if=lambda pixels: pixels == MIN_SIDE,
    )
    images: Literal["data", "url"] = Field(
        "data", description="how images are sent: in the request itself, or by a signed URL of the store in S3"
    )
    image_url_hours: float = Field(24.0, ge=1, le=168, description="how long such a URL can be read")
    simulated: bool = False
    in_process: InProcessSettings | None = Field(None, description="of a base_url transformers:…; null: the defaults")

    @model_validator(mode="after")
    def _placed(self) -> Model:
        weights = self.weights
        if weights is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?|(~|\.{0,2}/).*", weights):
            raise ValueError(
                f"base_url {self.base_url!r} names neither a hub's model nor a folder: write {IN_PROCESS}owner/name, "
                f"or {IN_PROCESS}/path/to/folder"
            )
        if self.image_min_side > self.image_side:
            raise ValueError(
                f"image_min_side {self.image_min_side} is more than image_side {self.image_side}: lower it"
            )
        if weights is not None and self.mode == "batch":
            raise ValueError("mode: batch is for a model behind a URL (in process requests are batched anyway)")
        if weights is None and self.in_process is not None:
            raise ValueError(f"in_process is for a base_url that begins with {IN_PROCESS} (remove one of them)")
        if weights is not None and self.images == "url":
            raise ValueError("images is 'url', which weights in this process cannot read: set images to data")
        if taken := _OURS.intersection(self.extra_body or ()):
            raise ValueError(f"extra_body holds {', '.join(sorted(taken))}, which the pipeline sets itself: remove it")
        if odd := [name for name in self.headers or () if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)]:
            raise ValueError(f"headers: {odd[0]!r} is no name of a header")
        return self

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings beside temperature, as far as they are set, that can change an answer: part of a unit's key."""
        named: dict[str, Any] = {"top_p": self.top_p, "seed": self.seed, "reasoning_effort": self.reasoning_effort}
        named |= {"stop": None if self.stop is None else list(self.stop), "extra_body": self.extra_body or None}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def weights(self) -> str | None:
        """Hub id or folder of a model that runs in this process; None for one behind a URL."""
        return self.base_url.removeprefix(IN_PROCESS) if self.base_url.startswith(IN_PROCESS) else None
