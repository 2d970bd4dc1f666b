"""Log-likelihood ranking: which of the candidates does a model find likeliest?

The log-likelihood of the whole answer and its end-of-turn token, summed over tokens. This is the log of a probability,
so that it needs no correction for the answer's length. Works for every vision-language model of transformers that has a
chat template.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.evaluate.questions import Asked

_BATCH = 64  # answers in one forward pass
_BLANK = (127, 127, 127)


class Ranker:
    """One checkpoint, loaded. Raises SourceError where transformers cannot load it."""

    def __init__(self, checkpoint: str | Path, revision: str | None = None) -> None:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read when torch is loaded: threads that spin starve others
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # a task's log takes what goes to standard error for an error

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._processor = AutoProcessor.from_pretrained(str(checkpoint), revision=revision)
            self._model = AutoModelForImageTextToText.from_pretrained(
                str(checkpoint),
                revision=revision,
                dtype="auto",
                device_map=self._device if self._device == "cuda" else None,
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise SourceError(
                f"checkpoint {checkpoint}: transformers cannot load it ({error}). One of LLaVA's or InternVL's own "
                "trainers is scored with lmms-eval: name its benchmarks. See docs/benchmarks.md."
            ) from error
        self._tokenizer = self._processor.tokenizer
        self._tokenizer.padding_side = "right"

    def rank(
        self,
        asked: Sequence[Asked],
        images: Sequence[str | None],
        advance: Callable[[int], None] = lambda done: None,
    ) -> list[int]:
        """For each question the index of its likeliest candidate; of equally likely ones the first.

        images: the file that is shown with each question; None: a grey image. advance: is called with the number of
        answers of each forward pass.
        """
        flat = [
            (number, image, each.question, candidate)
            for number, (each, image) in enumerate(zip(asked, images, strict=True))
            for candidate in each.candidates
        ]
        # Answers of one length share a batch: little is padded.
        order = sorted(range(len(flat)), key=lambda k: (len(flat[k][2]) + len(flat[k][3]), k))
        scores = [0.0] * len(flat)
        begins = self._prompt_lengths([(image, each.question) for each, image in zip(asked, images, strict=True)])
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            for k, score in zip(
                part, self._score([flat[k][1:] for k in part], [begins[flat[k][1:3]] for k in part]), strict=True
            ):
                scores[k] = score
            advance(len(part))
        best, at = [], 0
        for each in asked:
            own = scores[at : at + len(each.candidates)]
            best.append(max(range(len(own)), key=lambda k: (own[k], -k)))
            at += len(own)
        return best

    def generate(self, image: str | None, question: str, tokens: int = 64) -> str:
        """The model's reply to a question, decoded greedily; at most ``tokens`` tokens."""
        import torch

        prompt, _ = self._texts(question, "")
        inputs = self._processor(images=[_opened(image)], text=[prompt], return_tensors="pt").to(self._device)
        with torch.no_grad():
            out = self._model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        return str(self._tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

    def _texts(self, question: str, answer: str) -> tuple[str, str]:
        asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        template = self._processor.apply_chat_template
        prompt = template([asked], tokenize=False, add_generation_prompt=True)
        return prompt, template([asked, said], tokenize=False)

    def _prompt_lengths(self, asked: Sequence[tuple[str | None, str]]) -> dict[tuple[str | None, str], int]:
        """Tokens before the answer, by image and question: the same for all candidates of a question."""
        found: dict[tuple[str | None, str], int] = {}
        distinct = list(dict.fromkeys(asked))
        for start in range(0, len(distinct), _BATCH):
            part = distinct[start : start + _BATCH]
            images = {image: _opened(image) for image, _ in part}
            prompts = [self._texts(question, "")[0] for _, question in part]
            mask = self._encode([images[image] for image, _ in part], prompts)["attention_mask"]
            found |= zip(part, mask.sum(1).tolist(), strict=True)
        return found

    def _score(self, rows: Sequence[tuple[str | None, str, str]], begins: Sequence[int]) -> list[float]:
        """Log-likelihood of each row's answer; rows: image, question, answer. begins: tokens before the answer."""
        import torch

        images = {image: _opened(image) for image in {row[0] for row in rows}}
        shown = [images[image] for image, _, _ in rows]
        texts = [self._texts(question, answer)[1] for _, question, answer in rows]
        full = self._encode(shown, texts).to(self._device)
        with torch.no_grad():
            logits = self._model(**full).logits[:, :-1].float()
        ids, mask = full["input_ids"][:, 1:], full["attention_mask"][:, 1:].bool()
        place = torch.arange(1, ids.shape[1] + 1)[None]
        answer = mask.cpu() & (place >= torch.tensor(begins)[:, None])
        likelihoods = logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1).cpu()
        return [float(value) for value in (likelihoods * answer).sum(1)]

    def _encode(self, images: list[Any], texts: list[str]) -> Any:
        return self._processor(images=images, text=texts, padding=True, return_tensors="pt")


def _opened(file: str | None) -> Any:
    from PIL import Image

    from taskgalaxy_ops.models.rendering import upright

    if file is None:
        return Image.new("RGB", (64, 64), _BLANK)
    try:
        return upright(Path(file).read_bytes())
    except Exception as error:  # whatever a decoder raises
        raise SourceError(f"image {file}: cannot be read ({error}). Fetch the release again.") from error
