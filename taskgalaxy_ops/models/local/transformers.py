"""Runs a vision-language model of transformers in this process: takes chats and returns texts, many at once.

In a batch, prompts are padded on the left, so that each answer follows its own prompt; tokens are counted without
padding; and a batch that does not fit into memory is answered in halves. At temperature 0 decoding is greedy: the same
chat gives the same tokens, up to rounding, which on a GPU may depend on the other chats of the batch.
"""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.models.local.grammar import GrammarProcessor, Grammars
from taskgalaxy_ops.settings import InProcessSettings, Model

if TYPE_CHECKING:
    from PIL import Image

_INSTALL = "pip install 'taskgalaxy-ops[train]'"
_NO_ROOM = ("out of memory", "can't allocate memory")  # in the messages of CUDA, MPS and the CPU's allocator


class TooLongError(ValueError):
    """A chat takes more tokens than the model's context holds."""


@dataclass(frozen=True, slots=True)
class Chat:
    """One turn for the model: the pictures first, as model families are trained, then the text.

    schema: the JSON schema that the answer is held to; None: it may be any text.
    """

    text: str
    images: tuple[Image.Image, ...] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """The text that a model wrote, and its tokens. ``cut``: the room was used up before the text ended."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cut: bool


class Generator:
    """A model and its processor, on one device. For one thread at a time.

    ``most``: chats that are answered together at most.
    """

    def __init__(self, model: Model) -> None:
        """Load the weights. Raises ModelError, which says what is missing."""
        self._name = f"model {model.name!r} ({model.base_url})"
        chosen = model.in_process or InProcessSettings()
        self.most = chosen.batch
        self._stopped = False
        os.environ.setdefault(
            "GOMP_SPINCOUNT", "1000"
        )  # torch reads it when it loads: spinning threads slow down other processes
        try:
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor
        except ImportError as error:
            raise ModelError(f"{self._name}: runs in process, which needs {error.name}. Run {_INSTALL}.") from error
        self._torch = torch
        self._device = self._device_of(chosen.device)
        place = Path(model.weights or "").expanduser()
        source = str(place) if place.is_dir() else str(model.weights)
        if (model.weights or "").startswith(("/", "~", ".")) and not place.is_dir():
            raise ModelError(f"{self._name}: there is no folder {place} on this worker. Mount it, or mend base_url.")
        # A folder has no revisions: there, `revision` only tells generations of the weights apart in the data.
        where = {
            "revision": None if place.is_dir() else model.revision,
            "trust_remote_code": chosen.trust_remote_code,
        }
        try:
            self._processor = AutoProcessor.from_pretrained(source, **where)
            self._model = AutoModelForImageTextToText.from_pretrained(
                source, dtype=chosen.dtype, device_map=self._map(chosen.device), **where
            ).eval()
            if self._device == "mps":
                self._model.to("mps")
        except Exception as error:
            raise ModelError(
                f"{self._name}: transformers cannot load it ({type(error).__name__}: {_short(error)}). It loads what "
                "has a class in transformers for image and text; see docs/models.md for the others, and check "
                "base_url, revision, in_process.trust_remote_code and the memory of the device."
            ) from error
        self._prepare_tokens()

    def generate(self, chats: Sequence[Chat], *, room: int, temperature: float) -> list[Written | TooLongError]:
        """The model's text for each chat, in order, of at most ``room`` tokens; or that the chat is too long.

        Either all of the chats show pictures or none does. If memory runs out, ``most`` is halved for good, and the
        other chats are answered in such parts. Raises MemoryError if not even one chat fits into memory, and what the
        model's code raises.
        """
        answers: list[Written | TooLongError] = []
        while len(answers) < len(chats):
            part = chats[len(answers) : len(answers) + self.most]
            try:
                answers += self._generate(part, room, temperature)
                continue
            except (MemoryError, RuntimeError) as error:
                if not isinstance(error, MemoryError) and not any(words in str(error) for words in _NO_ROOM):
                    raise
                reason = _short(error)
            self._free()  # outside of the handler, since the error's frames hold the memory
            if len(part) == 1:
                raise MemoryError(reason)
            self.most = len(part) // 2
        return answers

    def stop(self) -> None:
        """Stop generating at the next token. May be called from another thread."""
        self._stopped = True

    def close(self) -> None:
        """Free the memory."""
        del self._model, self._processor
        self._free()

    def _generate(self, chats: Sequence[Chat], room: int, temperature: float) -> list[Written | TooLongError]:
        inputs = self._inputs(chats)
        lengths = [int(length) for length in inputs["attention_mask"].sum(1)]
        rooms = [min(room, (self._context or math.inf) - length) for length in lengths]
        if len(set(rooms)) > 1:  # a chat's room must not depend on the other chats of its batch
            answers: dict[int, Written | TooLongError] = {}
            for size in set(rooms):
                places = [at for at, room_left in enumerate(rooms) if room_left == size]
                written = self._generate([chats[at] for at in places], room, temperature)
                answers.update(zip(places, written, strict=True))
            return [answers[at] for at in range(len(chats))]
        if rooms[0] < 1:
            return [
                TooLongError(f"it takes {length} tokens, the model's context is {self._context}") for length in lengths
            ]
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        matchers = [self._grammars.matcher(chat.schema) for chat in chats]
        held = [GrammarProcessor(matchers)] if any(matcher is not None for matcher in matchers) else []
        with self._torch.inference_mode():
            out = self._model.generate(
                **inputs.to(self._model.device, dtype=self._model.dtype),
                max_new_tokens=int(rooms[0]),
                num_beams=1,
                pad_token_id=self._tokenizer.pad_token_id,
                stopping_criteria=[self._ending],
                logits_processor=held,
                **sampling,
            )
        width = inputs["input_ids"].shape[1]
        return [self._written(row, length) for row, length in zip(out[:, width:].tolist(), lengths, strict=True)]

    def _ending(self, tokens: Any, scores: Any, **more: Any) -> Any:  # noqa: ARG002 - as transformers calls it
        return self._torch.full((tokens.shape[0],), self._stopped, device=tokens.device)

    def _written(self, tokens: list[int], prompt_tokens: int) -> Written:
        end = next((at for at, token in enumerate(tokens) if token in self._ends), None)
        own = tokens if end is None else tokens[: end + 1]  # padding follows the end
        text = str(self._tokenizer.decode(own, skip_special_tokens=True)).strip()
        return Written(text, prompt_tokens, len(own), cut=end is None)

    def _inputs(self, chats: Sequence[Chat]) -> Any:
        turns = [
            [
                {
                    "role": "user",
                    "content": [
                        *({"type": "image", "image": image} for image in chat.images),
                        {"type": "text", "text": chat.text},
                    ],
                }
            ]
            for chat in chats
        ]
        return self._processor.apply_chat_template(
            turns,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )

    def _prepare_tokens(self) -> None:
        self._tokenizer: Any = getattr(self._processor, "tokenizer", None)
        if self._tokenizer is None or not getattr(self._processor, "chat_template", None):
            raise ModelError(
                f"{self._name}: its files hold no chat template or no image processor. Take a model that was tuned to "
                "follow instructions, or serve it by vLLM; see docs/models.md."
            )
        self._tokenizer.padding_side = "left"
        eos = self._model.generation_config.eos_token_id
        ends = eos if isinstance(eos, list) else [eos]
        self._ends = {end for end in (*ends, self._tokenizer.eos_token_id) if end is not None}
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        text = self._model.config.get_text_config()
        scored = int(getattr(text, "vocab_size", 0) or len(self._tokenizer))
        self._grammars = Grammars(self._tokenizer, sorted(self._ends), scored)
        self._context: int | None = getattr(text, "max_position_embeddings", None)

    def _device_of(self, device: str) -> str:
        torch = self._torch
        if device in {"auto", "spread"}:
            return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        if not available[device.partition(":")[0]]:
            raise ModelError(f"{self._name}: this worker has no {device}. Set in_process.device, e.g. to auto.")
        return device

    def _map(self, device: str) -> str | None:
        """The device on which accelerate puts the weights as it reads them; None: torch moves them later, if at all."""
        if not self._device.startswith("cuda"):
            return None
        return "auto" if device == "spread" else self._device

    def _free(self) -> None:
        gc.collect()
        if self._device.startswith("cuda"):
            self._torch.cuda.empty_cache()
        elif self._device == "mps":
            self._torch.mps.empty_cache()


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
