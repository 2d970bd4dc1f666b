"""What easy_vqa.yaml names. lmms-eval loads this file by its path, in a Python that need not have taskgalaxy_ops."""

from __future__ import annotations

from typing import Any


def picture(doc: dict[str, Any]) -> list[Any]:
    """The document's image, as lmms-eval's models take it."""
    from PIL import Image

    with Image.open(doc["image"]) as image:
        return [image.convert("RGB")]


def question(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, str] | None = None) -> str:
    """The question between what the model's family wants before and after it."""
    around = lmms_eval_specific_kwargs or {}
    return f"{around.get('pre_prompt', '')}{doc['question']}{around.get('post_prompt', '')}"


def grade(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1 where the reply is the answer, but for case, blanks and a full stop."""
    reply = results[0].strip().rstrip(".").strip().casefold()
    return {"accuracy": float(reply == doc["answer"].casefold())}
