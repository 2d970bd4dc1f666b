"""The pipeline as a table of contents: each step, in the order in which data flow through them.

    sources/ingest.py            files of a source        -> image shards
    generation/embed.py          image shards             -> embeddings
    generation/match_run.py      embeddings, task types   -> matches           (stages/match.py)
    generation/run.py            drives the three stages that ask models, image shard by image shard (shard_run.py):
        stages/filter.py         matches                  -> relevant matches  (the teacher keeps what fits)
        stages/write.py          relevant matches         -> question-answer pairs
        stages/vote.py           pairs                    -> samples           (the judges vote)
    release/publish.py           samples                  -> release
    finetune/run.py              release                  -> checkpoint
    evaluate/run.py              checkpoint               -> scores

Each step computes the shards whose keys do not exist yet; running it again on unchanged inputs asks no model and
encodes nothing. Airflow's tasks and the command line call what is named here.
"""

from taskgalaxy_ops.generation.embed import embed
from taskgalaxy_ops.generation.lanes import Lane, lanes
from taskgalaxy_ops.generation.match_run import match_shards
from taskgalaxy_ops.generation.run import RunOptions, RunResult, generate
from taskgalaxy_ops.sources.ingest import IngestReceipt, ingest

__all__ = ["IngestReceipt", "Lane", "RunOptions", "RunResult", "embed", "generate", "ingest", "lanes", "match_shards"]
