"""The work with distilabel: a pipeline of one ``TextGenerationWithImage`` step, in the venv of ``make bench-peers``."""

from __future__ import annotations

import tempfile

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import StepResources
from distilabel.steps.tasks import TextGenerationWithImage

from benchmarks.peers.work import INSTRUCTION, MAX_TOKENS, MODEL, RESPONSE_FORMAT, Work, encoded, is_reply, main

# A step sends a batch, and waits for its slowest request before it takes the next. Several replicas with a part of the
# requests each keep more in flight, and use more than one core. Eight are hardly faster, and take twice the resources.
REPLICAS = 4


class Ask(TextGenerationWithImage):
    """The image column holds the file's path, so that little data is passed between processes."""

    def _transform_image(self, image: str) -> str:
        return f"data:image/jpeg;base64,{encoded(image)}"


def run(work: Work) -> int:
    """Do the work; returns the number of records obtained."""
    with tempfile.TemporaryDirectory() as cache, Pipeline("work", cache_dir=cache, enable_metadata=False) as pipeline:
        llm = OpenAILLM(
            model=MODEL,
            base_url=work.base_url,
            api_key="none",
            # In the request's own field, because distilabel's structured_output would use instructor in tool mode.
            generation_kwargs={
                "max_new_tokens": MAX_TOKENS,
                "temperature": 0,
                "extra_body": {"response_format": RESPONSE_FORMAT},
            },
        )
        Ask(
            llm=llm,
            input_batch_size=work.in_flight // REPLICAS,
            resources=StepResources(replicas=REPLICAS),
            add_raw_input=False,
            add_raw_output=False,
        )
        rows = [{"instruction": INSTRUCTION, "image": str(image)} for image in work.images()]
        made = pipeline.run(dataset=rows, dataset_batch_size=work.in_flight, use_cache=False)
        return sum(map(is_reply, made["default"]["train"]["generation"]))


if __name__ == "__main__":
    main(run)
