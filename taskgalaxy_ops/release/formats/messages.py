"""Hugging Face Parquet for trainers that speak in messages (TRL, transformers): ``images`` beside ``messages``.

``prompt_completion`` is the same with the last answer of a conversation as ``completion``, and what is before it as
``prompt``.
"""

from __future__ import annotations

from taskgalaxy_ops.release.formats.layouts import Row, parts, said_in
from taskgalaxy_ops.release.formats.tables import MESSAGES_COLUMN, table_format
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.select import Selection


def _messages(_: Selection, sample: Sample) -> list[Row]:
    return [{"messages": parts(said_in(sample), len(sample.locations))}]


def _prompt_completion(_: Selection, sample: Sample) -> list[Row]:
    said = parts(said_in(sample), len(sample.locations))
    return [{"prompt": said[:-1], "completion": said[-1:]}]


MESSAGES = table_format(
    "messages",
    {"messages": MESSAGES_COLUMN},
    _messages,
    about="images and messages, for TRL and transformers",
)
PROMPT_COMPLETION = table_format(
    "prompt_completion",
    {"prompt": MESSAGES_COLUMN, "completion": MESSAGES_COLUMN},
    _prompt_completion,
    about="images, prompt and completion, for TRL",
)
