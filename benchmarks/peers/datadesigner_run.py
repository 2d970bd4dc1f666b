"""The work with NeMo Data Designer: a structured column over a column of files, in the venv of ``make bench-peers``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import data_designer.config as dd
import pandas as pd
import tiktoken.registry
from data_designer.interface import DataDesigner

from benchmarks.peers.work import INSTRUCTION, MAX_TOKENS, MODEL, RESPONSE_FORMAT, SCHEMA, Work, is_record, main

# Its final statistics count tokens, with a tokenizer that it would fetch from the network. This one replaces it: a
# token is a byte.
tiktoken.registry.ENCODINGS["cl100k_base"] = tiktoken.Encoding(
    "bytes", pat_str=r"[\s\S]", mergeable_ranks={bytes([n]): n for n in range(256)}, special_tokens={}
)


def run(work: Work) -> int:
    """Do the work; returns the number of records obtained."""
    provider = dd.ModelProvider(name="server", endpoint=work.base_url, api_key="none")
    model = dd.ModelConfig(
        alias=MODEL,
        model=MODEL,
        provider=provider.name,
        skip_health_check=True,
        inference_parameters=dd.ChatCompletionInferenceParams(
            max_parallel_requests=work.in_flight,
            max_tokens=MAX_TOKENS,
            temperature=0,
            # Without this it only writes the schema into the prompt.
            extra_body={"response_format": RESPONSE_FORMAT},
        ),
    )
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    # Files are given by path: it reads them when it sends the request.
    seed = pd.DataFrame({"image": [str(image) for image in work.images()]})
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=seed))
    builder.add_column(
        dd.LLMStructuredColumnConfig(
            name="pair",
            model_alias=MODEL,
            prompt=INSTRUCTION,
            output_format=SCHEMA,
            multi_modal_context=[dd.ImageContext(column_name="image", image_format=dd.ImageFormat.JPEG)],
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        designer = DataDesigner(Path(folder), model_providers=[provider])
        designer.set_run_config(dd.RunConfig(disable_early_shutdown=True, otel_metrics_port=None))
        made = designer.create(builder, num_records=work.count).load_dataset()
        return sum(map(is_record, made["pair"]))


if __name__ == "__main__":
    main(run)
