"""Kept replies are read again by a parser that reads more: told before it is done, and done once."""

import json
from pathlib import Path

import pytest
from PIL import Image
from releases import workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.cli import main
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.operations import answers
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Answer, Reason, Reply
from taskgalaxy_ops.reports.text import run as run_text
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.workspace import Workspace

SHARD = keys.TAXONOMY_SHARD  # any journal
BOTH_WAYS = r"C:\new\table"  # a path, or a line break and a tab
LATEX = r'{"pairs": [{"index": 1, "question": "What?", "answer": "$\frac{1}{2}$", "reasoning": ""}]}'
LOST = Answer({"question": "What?", "answer": "$rac{1}{2}$", "reasoning": ""})  # what an older parser made of it
UNITS = tuple(sha256_hex(name.encode()) for name in ("one", "two", "three"))


def kept(stage: str, unit: str, text: str, answer: Answer) -> Reply:
    """A reply of an older version, and what it made of it."""
    return Reply(
        reply=f"{stage}-{unit[:8]}",
        stage=stage,
        model="t",
        units=(unit,),
        answers={unit: answer},
        raw={"choices": [{"finish_reason": "stop", "message": {"content": text}}]},
        usage={},
        cost=0,
        list_cost=0,
        ceiling=0,
        block="b",
        attempts=1,
        seen=0,
        at=1.0,
        seconds=1.0,
        image="ab" * 32,
    )


@pytest.fixture
def store(tmp_path: Path) -> Workspace:
    found = workspace(tmp_path)
    journal = Journal(found.store, SHARD)
    malformed = Answer(terminal=Reason.MALFORMED, detail="`vote` must be int")
    journal.add(kept("vote", UNITS[0], '{"votes": [{"index": 1, "vote": "1", "reason": "so"}]}', malformed))
    journal.add(kept("vote", UNITS[1], "I would say yes.", malformed))
    journal.add(kept("write", UNITS[2], LATEX, LOST))
    journal.flush()
    return found


def test_a_dry_run_tells_what_there_is_and_changes_nothing(store: Workspace) -> None:
    before = {listed.key for listed in store.store.list("")}
    found = answers.read_again(store, dry_run=True)
    assert (found.answers, found.malformed, found.altered) == ({"vote": 1}, {"vote": 2}, 1)
    assert {listed.key for listed in store.store.list("")} == before
    assert answers.read_again(store, dry_run=True) == found


def test_what_can_be_read_now_takes_the_place_of_a_malformed_answer(store: Workspace) -> None:
    assert answers.read_again(store).answers == {"vote": 1}
    journal = Journal(store.store, SHARD)
    assert journal.answers[UNITS[0]] == Answer({"vote": 1, "reason": "so"})
    assert journal.answers[UNITS[1]].terminal == Reason.MALFORMED
    assert journal.answers[UNITS[2]].value == {"question": "What?", "answer": "$rac{1}{2}$", "reasoning": ""}, (
        "it stands"
    )
    again = answers.read_again(store)
    assert (again.answers, again.malformed) == ({}, {"vote": 1})


def test_altered_texts_are_put_right_where_that_is_asked_for(store: Workspace) -> None:
    assert answers.altered_pairs(store, SHARD) == (1, 0)
    assert answers.read_again(store, dry_run=True, altered=True).altered == 1
    assert answers.altered_pairs(store, SHARD) == (1, 0), "a dry run changes nothing"
    found = answers.read_again(store, altered=True)
    assert (found.altered, found.corrected, found.unreadable) == (1, 1, 0)
    written = Journal(store.store, SHARD).answers[UNITS[2]].value
    assert written == {"question": "What?", "answer": r"$\frac{1}{2}$", "reasoning": ""}
    assert answers.altered_pairs(store, SHARD) == (0, 0)
    again = answers.read_again(store, altered=True)
    assert (again.altered, again.corrected, again.answers) == (0, 0, {})


def test_verify_counts_altered_texts_and_says_what_puts_them_right(tmp_path: Path) -> None:
    found = workspace(tmp_path)
    picture = tmp_path / "pictures" / "one.png"
    picture.parent.mkdir()
    Image.new("RGB", (64, 64), (200, 20, 20)).save(picture)
    pipeline.ingest(found, "mine", chosen=SourceSettings(location=str(picture.parent)))
    (shard,) = found.registry.shards()
    journal = Journal(found.store, shard.id)
    journal.add(kept("write", UNITS[2], LATEX, LOST))
    journal.flush()
    told = verify(found)
    assert (told.altered, told.unreadable, told.damage) == (1, 0, [])
    assert "`taskgalaxy answers read-again --altered` puts them right" in "\n".join(run_text.verified(told))
    answers.read_again(found, altered=True)
    assert verify(found).altered == 0


def test_a_pair_that_today_would_be_asked_again_is_counted_and_left(store: Workspace) -> None:
    journal = Journal(store.store, SHARD)
    unit = sha256_hex(b"four")
    text = '{"pairs": [{"index": 1, "question": "What?", "answer": "' + BOTH_WAYS + '", "reasoning": ""}]}'
    kept_before = Answer({"question": "What?", "answer": "as an older parser read it", "reasoning": ""})
    journal.add(kept("write", unit, text, kept_before))
    journal.flush()
    found = answers.read_again(store, altered=True)
    assert (found.corrected, found.unreadable) == (1, 1)
    assert Journal(store.store, SHARD).answers[unit] == kept_before
    assert answers.altered_pairs(store, SHARD) == (0, 1)


def test_the_command_says_it_in_words_and_in_json(
    store: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(store.settings.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    assert main(["answers", "read-again", "--settings", str(file), "--dry-run", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "1 answers of vote can be read" in told and "2 of vote" in told and "nothing was changed" in told
    assert main(["answers", "read-again", "--settings", str(file), "--dry-run", "--altered", "--quiet"]) == 0
    assert "1 written pairs lost backslashes" in (told := capsys.readouterr().out) and "would be put right" in told
    assert main(["answers", "read-again", "--settings", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "answers": {"vote": 1},
        "malformed": {"vote": 2},
        "altered": 1,
        "unreadable": 0,
        "corrected": 0,
        "dry_run": False,
    }
