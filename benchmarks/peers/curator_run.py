"""The work with Bespoke Curator: an ``LLM`` over a list of files, in the venv of ``make bench-peers``."""

from __future__ import annotations

import tempfile
from typing import Any

# Imported for its effect: tiktoken then reads the tokenizer's file that comes with litellm, instead of fetching it.
import litellm.litellm_core_utils.default_encoding  # noqa: F401
from bespokelabs import curator
from bespokelabs.curator.request_processor.online.openai_online_request_processor import OpenAIOnlineRequestProcessor
from bespokelabs.curator.types.prompt import Image
from pydantic import BaseModel

from benchmarks.peers.work import INSTRUCTION, MAX_TOKENS, MODEL, Work, is_record, main

# Curator's own limits must not matter: by default it sends 200 requests a minute.
NO_LIMIT = 10**9

# Curator would ask the server two things beforehand. It gets the answers here, so that the clock measures the work
# only: no limits in the headers, and structured output is supported.
OpenAIOnlineRequestProcessor.get_header_based_rate_limits = lambda processor: (0, 0)
OpenAIOnlineRequestProcessor.check_structured_output_support = lambda processor: True


# Curator takes the schema from a class. It has no docstring, because curator would send it.
class Pair(BaseModel):
    question: str
    answer: str


class Ask(curator.LLM):
    """One request for each image, given by its path: curator reads the file when it sends the request."""

    response_format = Pair

    def prompt(self, input: dict[str, Any]) -> Any:
        return INSTRUCTION, Image(url=input["image"], mime_type="image/jpeg")


def run(work: Work) -> int:
    """Do the work; returns the number of records obtained."""
    ask = Ask(
        model_name=MODEL,
        backend="openai",  # its fastest backend: aiohttp, without litellm
        generation_params={"max_tokens": MAX_TOKENS, "temperature": 0},
        backend_params={
            "base_url": work.base_url,
            "api_key": "none",
            "max_concurrent_requests": work.in_flight,
            "max_requests_per_minute": NO_LIMIT,
            "max_tokens_per_minute": NO_LIMIT,
            "require_all_responses": False,  # else a single lost response would end the run without the others
        },
    )
    with tempfile.TemporaryDirectory() as cache:
        made = ask([{"image": str(image)} for image in work.images()], working_dir=cache)
        return sum(map(is_record, made.dataset))


if __name__ == "__main__":
    main(run)
