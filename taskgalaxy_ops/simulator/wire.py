"""The protocol's two ends: what a chat completion request asks, and how replies and errors are written.

A request is OpenAI's chat completion whose last user message has a text that ends with one fenced JSON block
(models/request.py), with its image or images beside it, as data URLs or by URL. What is wrong with a request is a
WrongRequestError with OpenAI's status.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.models.request import GREETING
from taskgalaxy_ops.simulator.config import BLIND, JUDGES, MODELS, TEACHER, mistakes

CHARACTERS_A_TOKEN = 4  # OpenAI's rule of thumb for English text
IMAGE_TOKENS_LOW = 85  # an image at low detail
MOST_IMAGES = 4  # of a request about several
_FENCE = "```"


class WrongRequestError(Exception):
    """A request that no answer can be given to; sent as OpenAI's error with an HTTP status."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class _Open(BaseModel):
    """A part of a request in which a client may say more than is read here."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _ImageUrl(_Open):
    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class _TextPart(_Open):
    type: Literal["text"]
    text: str


class _ImagePart(_Open):
    type: Literal["image_url"]
    image_url: _ImageUrl


class _Message(_Open):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[_TextPart | _ImagePart, Field(discriminator="type")]]

    @property
    def parts(self) -> Sequence[_TextPart | _ImagePart]:
        return self.content if isinstance(self.content, list) else [_TextPart(type="text", text=self.content)]

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.parts if isinstance(part, _TextPart))

    @property
    def request(self) -> str:
        """The text that holds the request: the last one that ends with a fence. What is said after it, as of a former
        reply, is no part of it."""
        texts = [part.text for part in self.parts if isinstance(part, _TextPart)]
        return next((text for text in reversed(texts) if text.rstrip().endswith(f"\n{_FENCE}")), self.text)


class _ResponseFormat(_Open):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class _Body(_Open):
    model: str
    messages: list[_Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    response_format: _ResponseFormat | None = None
    stream: Literal[False] | None = None
    n: Literal[1] | None = None


class _TaskType(_Closed):
    index: int
    task_type: str


class _Turn(_Closed):
    question: str
    answer: str | None = None


class _Pair(_TaskType):
    question: str
    answer: str | None = None
    reasoning: str | None = None
    further_turns: list[_Turn] | None = None


class _OfImage(_Closed):
    # What the image's source says of it. Answers are drawn anew where it is another, but follow from the image alone.
    context: dict[str, str] | None = None


class _Filter(_OfImage):
    request: Literal["filter"]
    task_types: list[_TaskType] = Field(min_length=1)


class _Write(_OfImage):
    request: Literal["write"]
    variant: str
    language: str | None = None
    images: int | None = Field(None, ge=2, le=MOST_IMAGES)
    task_types: list[_TaskType] = Field(min_length=1)


class _FilterAndWritten(_TaskType):
    part_2: Literal[False] | None = None  # a question is not asked for


class _FilterAndWrite(_OfImage):
    request: Literal["filter and write"]
    variant: str
    task_types: list[_FilterAndWritten] = Field(min_length=1)


class _Question(_TaskType):
    question: str


class _Answer(_OfImage):
    request: Literal["answer"]
    variant: str
    number: int = Field(ge=2)
    questions: list[_Question] = Field(min_length=1)


class _Vote(_OfImage):
    request: Literal["vote"]
    show_answer: bool
    images: int | None = Field(None, ge=2, le=MOST_IMAGES)
    pairs: list[_Pair] = Field(min_length=1)


class _Blind(_Closed):
    request: Literal["blind"]
    try_: int = Field(ge=1, alias="try")
    task_type: str | None = None
    question: str


class _Expand(_Closed):
    request: Literal["expand"]
    kind: str
    path: str
    existing: list[str]
    cousins: list[str] = []
    count: int = Field(ge=0)
    round: int


_Block = _Filter | _Write | _FilterAndWrite | _Answer | _Vote | _Blind | _Expand
_BLOCK: TypeAdapter[_Block] = TypeAdapter(Annotated[_Block, Field(discriminator="request")])
REPLIES = {  # the reply's list, by kind of request
    "filter": "verdicts",
    "write": "pairs",
    "filter and write": "verdicts",
    "answer": "answers",
    "vote": "votes",
    "blind": "answers",
    "expand": "children",
}
UNLISTED = frozenset({"blind", "expand"})  # kinds of requests that are one item themselves


@dataclass(frozen=True, slots=True)
class Unit:
    """One item of a request. ``key`` is its identity in the statistics; ``index`` None: the request is the item."""

    key: str
    index: int | None
    item: Mapping[str, Any]  # as sent, without its index


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a request."""

    raw: bytes  # the file as sent
    id: str  # its sha256, hex
    detail: str  # low, high or auto


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A valid request."""

    key: str  # identity of the request for its faults: model and user message, so that a repair is another attempt
    model: str
    stage: str  # the kind of request, a key of REPLIES
    head: Mapping[str, Any]  # what all items share
    units: tuple[Unit, ...]
    images: tuple[Picture, ...]  # in the order of their parts
    image_id: str  # what names them: the sha256 of the one, hex; "" for none
    text_tokens: int
    max_tokens: int | None


def greeted(raw: bytes) -> dict[str, Any] | None:
    """The reply to the greeting, which asks for no work; None for any other request."""
    try:
        body = _Body.model_validate_json(raw)
    except ValidationError:
        return None
    if body.model not in MODELS or body.messages[-1].text != GREETING:
        return None
    asked = Asked(
        key="greeting",
        model=body.model,
        stage="greeting",
        head={},
        units=(),
        images=(),
        image_id="",
        text_tokens=text_tokens(GREETING),
        max_tokens=None,
    )
    return completion(asked, 1, text="ready", finish="stop", prompt_tokens=asked.text_tokens)


def fetches_nothing(_: str) -> bytes:
    """What a server answers that was not told where it may fetch images."""
    message = "image_url.url: must be `data:image/…;base64,…`; nothing is fetched without `image_origin`."
    raise WrongRequestError(400, message, "invalid_image_url")


def parse(raw: bytes, fetch: Callable[[str], bytes] = fetches_nothing) -> Asked:
    """What a request's body asks; ``fetch``: what lies at an image's URL. Raises WrongRequestError."""
    try:
        body = _Body.model_validate_json(raw)
    except ValidationError as error:
        raise WrongRequestError(400, mistakes(error)) from error
    if body.model not in MODELS:
        raise WrongRequestError(
            404, f"The model `{body.model}` does not exist; there are {', '.join(MODELS)}.", "model_not_found"
        )
    last = body.messages[-1]
    if last.role != "user":
        raise WrongRequestError(400, f"messages: the last one must be the user's, not the {last.role}'s.")
    block = _block(last.request)
    _check_model(body.model, block["request"])
    _check_format(body.response_format, REPLIES[block["request"]])
    wanted = 0 if block["request"] in {"expand", "blind"} else block.get("images", 1)
    images = _images(last, fetch, wanted)
    ids = [each.id for each in images]
    image_id = "".join(ids) if len(ids) < 2 else fingerprint("simulated.images", ids)
    name = next((name for name in ("task_types", "questions", "pairs") if name in block), None)
    head = {field: value for field, value in block.items() if field != name}
    return Asked(
        key=fingerprint("simulated.request", {"model": body.model, "text": last.request, "image": image_id}),
        model=body.model,
        stage=block["request"],
        head=head,
        units=_units(body.model, image_id, head, block[name] if name else None),
        images=images,
        image_id=image_id,
        text_tokens=sum(text_tokens(message.text) for message in body.messages),
        max_tokens=body.max_completion_tokens or body.max_tokens,
    )


def _block(text: str) -> dict[str, Any]:
    end = text.rstrip()
    start = end.rfind(f"{_FENCE}json\n")
    if start < 0 or not end.endswith(f"\n{_FENCE}"):
        raise WrongRequestError(400, "messages: the user's text must end with the request in a ```json block.")
    try:
        block = _BLOCK.validate_json(end[start + len(_FENCE) + 5 : -len(_FENCE)])
    except ValidationError as error:
        raise WrongRequestError(400, f"the request's block: {mistakes(error)}") from error
    return block.model_dump(exclude_none=True, by_alias=True)


def _check_model(model: str, stage: str) -> None:
    if (model in JUDGES) != (stage == "vote") or (model == BLIND) != (stage == "blind"):
        who = {"vote": ", ".join(JUDGES), "blind": BLIND}.get(stage, TEACHER)
        raise WrongRequestError(400, f"`{model}` does not answer `{stage}` requests; ask {who}.")


def _check_format(response_format: _ResponseFormat | None, replies: str) -> None:
    if response_format is None or response_format.type != "json_schema":
        return
    schema = (response_format.json_schema or {}).get("schema")
    fields = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(fields, dict) or set(fields) != {replies}:
        raise WrongRequestError(
            400, f"response_format.json_schema.schema: must describe an object with `{replies}` alone."
        )


def _images(message: _Message, fetch: Callable[[str], bytes], wanted: int) -> tuple[Picture, ...]:
    parts = [part.image_url for part in message.parts if isinstance(part, _ImagePart)]
    if len(parts) != wanted:
        raise WrongRequestError(400, f"the request needs {wanted} image(s) beside its text, not {len(parts)}.")
    raws = [(_raw(part.url, fetch), part.detail) for part in parts]
    return tuple(Picture(raw, sha256_hex(raw), detail) for raw, detail in raws)


def _raw(url: str, fetch: Callable[[str], bytes]) -> bytes:
    if url.startswith(("http://", "https://")):
        return fetch(url)
    head, _, data = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        raise WrongRequestError(400, "image_url.url: must be `data:image/…;base64,…`, or an http URL.")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise WrongRequestError(400, f"image_url.url: is not base64 ({error}).") from error


def _units(
    model: str, image: str, head: Mapping[str, Any], items: Sequence[Mapping[str, Any]] | None
) -> tuple[Unit, ...]:
    def unit(index: int | None, item: Mapping[str, Any]) -> Unit:
        told = {"model": model, "image": image, "head": head, "item": item}
        return Unit(fingerprint("simulated.unit", told), index, item)

    if items is None:
        return (unit(None, {}),)
    indices = [item["index"] for item in items]
    if len(set(indices)) != len(indices):
        raise WrongRequestError(400, "the request's block: an index is given twice.")
    return tuple(
        unit(item["index"], {name: value for name, value in item.items() if name != "index"}) for item in items
    )


def text_tokens(text: str) -> int:
    """Tokens of a text, about: four characters each."""
    return math.ceil(len(text) / CHARACTERS_A_TOKEN)


def image_tokens(width: int, height: int, detail: str = "auto") -> int:
    """Tokens of an image of this many pixels, by OpenAI's rule for GPT-4o.

    Source: OpenAI, "Images and vision", calculating costs, tile-based models: scaled down to fit 2048 by 2048, then
    to 768 on the shorter side; 85 tokens, and 170 for each tile of 512 by 512. Low detail: 85. Nothing is scaled up.
    """
    if detail == "low":
        return IMAGE_TOKENS_LOW
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    tiles = math.ceil(round(width * scale) / 512) * math.ceil(round(height * scale) / 512)
    return IMAGE_TOKENS_LOW + 170 * tiles


def completion(
    asked: Asked, number: int, *, text: str | None, finish: str, prompt_tokens: int, refusal: str | None = None
) -> dict[str, Any]:
    """A chat completion as OpenAI sends it, marked ``simulated``."""
    completion_tokens = text_tokens(text or refusal or "")
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "id": f"chatcmpl-sim-{asked.key[:16]}-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
        "simulated": True,
    }


def error_body(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI sends it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def encode(value: Any) -> str:
    """A reply's content."""
    return json.dumps(value, ensure_ascii=False)


def json_object(raw: bytes) -> dict[str, Any]:
    """A body that is a JSON object. Raises WrongRequestError."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise WrongRequestError(400, f"the body is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise WrongRequestError(400, "the body must be a JSON object.")
    return value
