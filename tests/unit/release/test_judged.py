"""``release.probability``: a column of each sample's probability of being right, and the judges on the card."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import tiny_models, tiny_voted

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.judges import pair_probabilities, record_judges
from taskgalaxy_ops.pipeline import generate
from taskgalaxy_ops.release.judge_fit import measure_of
from taskgalaxy_ops.release.judge_model import JudgeModel
from taskgalaxy_ops.release.publish import publish
from taskgalaxy_ops.reports.text.explain import explained
from taskgalaxy_ops.settings import VoteSettings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.judge_log import JudgeLog
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models", "tiny_voted"]


def released(workspace: Workspace, **settings: Any) -> tuple[pa.Table, str, str, Workspace]:
    """Rows, card and manifest's hash of a release under other settings."""
    other = workspace.with_settings(release=workspace.settings.release.model_copy(update=settings))
    receipt = publish(other)
    files = [each.key for each in other.store.list(keys.release(receipt.release.version)) if "/data/" in each.key]
    rows = pa.concat_tables([pq.read_table(io.BytesIO(other.store.get(key))) for key in files])
    card = other.store.get(keys.release(receipt.release.version) + "README.md").decode()
    return rows, card, receipt.release.manifest_sha256, other


def test_unset_there_is_no_column_and_no_section(workspace: Workspace) -> None:
    rows, card, _, _ = released(workspace)
    assert "probability" not in rows.column_names and "How right" not in card


def test_each_sample_has_what_the_report_says_of_it(workspace: Workspace) -> None:
    rows, card, manifest, other = released(workspace, probability="votes")
    assert (
        dict(zip(rows["id"].to_pylist(), rows["probability"].to_pylist(), strict=True)).items()
        <= dict(pair_probabilities(workspace)).items()
    )
    assert json.loads(rows.schema.metadata[b"huggingface"])["info"]["features"]["probability"]["dtype"] == "float64"
    assert "### How right the judges are" in card and "by all votes of this release" in card
    assert not publish(other).made and released(workspace, probability="votes")[2] == manifest


def test_each_sample_says_whether_it_is_answered_without_its_image(workspace: Workspace) -> None:
    guesser = {**workspace.settings.teacher.model_dump(), "name": "guesser", "model": "guesser"}
    vote = VoteSettings.model_validate({"blind": {"model": guesser, "tries": 1, "right": 1}})
    before = released(workspace, blind=True)
    assert before[0]["blind"].null_count == len(before[0]) and "of 0 that were tried" in before[1]
    probed = workspace.with_settings(vote=vote)
    assert generate(probed).pending == 0
    rows, card, _, other = released(probed, blind=True)
    verdicts = {pair: verdict.blind for pair, verdict in RunResults(probed).verdicts.items()}
    assert dict(zip(rows["id"].to_pylist(), rows["blind"].to_pylist(), strict=True)).items() <= verdicts.items()
    right = sum(rows["blind"].to_pylist())
    assert 0 < right < len(rows) and f"without the image: {right:,} of {len(rows):,} that were tried" in card
    assert not publish(other).made and "blind" not in released(probed)[0].column_names
    told = explained(explain(other, rows["id"].to_pylist()[rows["blind"].to_pylist().index(True)]))
    assert any(line.strip() == "answered without the image" for line in told)


def test_what_is_recorded_stays_until_somebody_records_again(workspace: Workspace) -> None:
    with pytest.raises(SettingsError, match="judges --record"):
        released(workspace, probability="recorded")
    measure = record_judges(workspace)
    assert record_judges(workspace) == measure and measure.number == 1, "the same is recorded once"
    rows, card, _, _ = released(workspace.with_settings(), probability="recorded")
    for votes, probability in zip(rows["votes"].to_pylist(), rows["probability"].to_pylist(), strict=True):
        assert probability == measure.probability((vote["judge"], vote["vote"]) for vote in votes)
    assert "entry 1" not in card and measure.hash[:8] in card
    assert JudgeLog(workspace.store).newest() == measure


def test_a_measure_says_what_its_model_says_of_every_ballot() -> None:
    model = JudgeModel(("a", "b"), {(("a", 1), ("b", 1)): 60, (("a", 1), ("b", 0)): 9, (("a", 0), ("b", 0)): 31})
    measure = measure_of(model, 100)
    for cast in [(), (("a", 1),), (("b", 1),), (("a", 0), ("b", 1)), (("b", 0), ("a", 1)), (("a", 1), ("b", 1))]:
        assert [measure.probability(cast)] == model.probabilities([cast]), cast
    assert measure.probability([("a", 1), ("b", None), ("c", 0)]) == measure.probability([("a", 1)])
