"""People's votes: drawn by hash, exported, imported whole or not at all, counted, revoked; and what a veto does."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from fakes import MemoryStore
from golden.golden_store import golden_workspace
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.cli import main
from taskgalaxy_ops.errors import ReviewError
from taskgalaxy_ops.generation.corrected import corrected
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations import review_files
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.forget import forget
from taskgalaxy_ops.operations.judges import pair_probabilities
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.release_outlook import release_outlook
from taskgalaxy_ops.operations.review import BY, Drawn, Filled, draw_pairs, overview, record, revoke
from taskgalaxy_ops.operations.takedown import left, take_down
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Pair, Reason, Vote
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.changes import Loss
from taskgalaxy_ops.release.published_rows import ReleaseRows
from taskgalaxy_ops.reports.html import render
from taskgalaxy_ops.reports.pages.contact_sheet import report_data
from taskgalaxy_ops.reports.text import explain as explain_text
from taskgalaxy_ops.reports.text import review as review_text
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.judge_log import JudgeLog, JudgeMeasure
from taskgalaxy_ops.storage.review_log import ReviewLog
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: TinyModels) -> Workspace:
    """Twelve images in six shards, run and released; a veto is not set."""
    tiny_seeds(tmp_path / "seeds.yaml")
    tiny_images(tmp_path / "images", 12)
    workspace = tiny_workspace(
        tiny_settings(tmp_path / "images", taxonomy={"seeds": str(tmp_path / "seeds.yaml")}, write=FORMS)
    )
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace).pending == 0
    publish.publish(workspace)
    tiny_models.start(None)
    return workspace


FORMS = {"variants": ["plain", "chain_of_thought"]}


def opened(workspace: Workspace, rule: str = "gold", **more: str) -> Workspace:
    """The store opened anew, under this rule."""
    settings = workspace.settings.model_copy(update={"review": type(workspace.settings.review)(rule=rule, **more)})
    assert isinstance(workspace.store, MemoryStore)
    return tiny_workspace(settings, workspace.store)


def released(workspace: Workspace, version: int = -1) -> dict[str, tuple[str, str, str]]:
    """The samples of a release: image, task type and variant by id."""
    number = publish.published(workspace)[version].version
    return {pair: tuple(rest) for pair, *rest in ReleaseRows(workspace.store, number).samples()}  # type: ignore[misc]


def files_of(workspace: Workspace, version: int) -> dict[str, bytes]:
    prefix = keys.release(version)
    return {
        each.key.removeprefix(prefix): workspace.store.get(each.key)
        for each in workspace.store.list(prefix)
        if not each.key.endswith("history.json")
    }


def vote(pair: str, verdict: str = "wrong", reviewer: str = "r1", **more: str) -> Filled:
    return Filled(place="line 2", pair=pair, reviewer=reviewer, verdict=verdict, **more)


def a_sample(workspace: Workspace, variant: str = "plain") -> Pair:
    """The first released sample of a form."""
    first = min(pair for pair, (_, _, form) in released(workspace).items() if form == variant)
    return RunResults(workspace).pairs[first]


# --- draw


def test_a_draw_repeats_and_a_larger_one_contains_the_smaller(workspace: Workspace) -> None:
    def ids(number: int, by: Sequence[str]) -> list[str]:
        return [each.pair.pair for each in draw_pairs(opened(workspace), number, by)]

    for by in ((), ("form",), ("task_type", "form", "disagreement"), BY):
        assert ids(7, by) == ids(20, by)[:7] == ids(7, by)
    assert set(ids(10_000, ())) == set(RunResults(workspace).verdicts)


def test_each_stratum_gives_one_before_any_gives_a_second(workspace: Workspace) -> None:
    results = RunResults(workspace)
    forms = {(each.task_type, each.variant) for each in results.pairs.values() if each.pair in results.verdicts}
    drawn = draw_pairs(workspace, len(forms), ("form", "task_type"))
    assert {(each.pair.task_type, each.pair.variant) for each in drawn} == forms
    every = draw_pairs(workspace, 10_000, ("disagreement",))
    for each in every:
        alike = [other for other in every if other.stratum == each.stratum]
        assert each.of == len(alike)
        cast = {one.vote for one in each.votes if not one.audit}
        assert (len(cast - {None}) > 1) == each.stratum["disagreement"].startswith("judges differ")
    assert "\x1b" not in "".join(review_text.drawn([evil()]))


def test_a_draw_by_probability_is_by_the_record_where_there_is_one(workspace: Workspace) -> None:
    said = dict(pair_probabilities(workspace))
    for each in draw_pairs(workspace, 10_000, ("probability",)):
        below = [bound for bound in (0.5, 0.9, 0.99) if said[each.pair.pair] < bound]
        assert each.stratum["probability"] == (f"below {below[0]:.0%}" if below else "99% or more")
    JudgeLog(workspace.store).record(JudgeMeasure(judges=("a", "b"), right=(0.95,) * 9, pairs=9))
    drawn = draw_pairs(opened(workspace), 10_000, ("probability",))
    assert {each.stratum["probability"] for each in drawn} == {"below 99%"}


# --- files


def evil() -> Drawn:
    """A pair whose texts a spreadsheet, a page or a terminal would obey."""
    pair = Pair("ab" * 32, "cd" * 32, "ocr~ocr a", "plain", "=HYPERLINK(1)", "-2 \x1b[31m", "@sum")
    votes = [Vote(pair.pair, "a", 1, "+1, since <script>", False), Vote(pair.pair, "b", None, "", False)]
    return Drawn(pair=pair, accepted=True, votes=votes, stratum={"form": "plain"}, of=3)


def test_no_cell_of_a_csv_file_is_a_formula_and_what_is_copied_comes_back_as_it_was(tmp_path: Path) -> None:
    text = review_files.to_csv([evil()], ["pictures/x.jpg"])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())
    assert row["question"] == "'=HYPERLINK(1)"
    assert row["judges"] == "a: right, +1, since <script>; b: abstains, "
    row |= {"verdict": "Wrong", "corrected_answer": row["question"], "reviewer": "R1"}
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(row), delimiter=";")  # as spreadsheets of many countries save it
    writer.writeheader()
    writer.writerow(row)
    (tmp_path / "filled.csv").write_text(out.getvalue(), "utf-8-sig", newline="")
    (filled,) = review_files.read_reviews(tmp_path / "filled.csv")
    assert (filled.place, filled.answer, filled.verdict, filled.reviewer) == ("line 2", "=HYPERLINK(1)", "wrong", "r1")


def test_tasks_of_label_studio_carry_the_judges_votes_as_predictions() -> None:
    (task,) = json.loads(review_files.to_label_studio([evil()], ["/data/local-files/?d=x/y.jpg"]))
    assert task["data"]["image"] == "/data/local-files/?d=x/y.jpg"
    assert task["data"]["pair"] == "ab" * 32
    (prediction,) = task["predictions"]  # an abstention is none
    assert prediction["model_version"] == "a"
    assert prediction["result"][0]["value"] == {"choices": ["right"]}
    for name in ("question", "answer", "reasoning", "image", "task_type"):
        assert f'value="${name}"' in review_files.LABELS


def test_all_turns_of_a_conversation_are_shown_and_none_of_its_answers_is_corrected(
    tmp_path: Path, tiny_models: TinyModels
) -> None:
    seeds, images = tiny_seeds(tmp_path / "seeds.yaml"), tiny_images(tmp_path / "images", 2)
    chosen = tiny_settings(images, taxonomy={"seeds": str(seeds)}, write={"variants": ["multi_turn"]})
    workspace = tiny_workspace(chosen)
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace).pending == 0
    (drawn,) = draw_pairs(workspace, 1, ())
    (asked, said), (later, then) = drawn.pair.turns
    (row,) = csv.DictReader(io.StringIO(review_files.to_csv([drawn], ["x.jpg"]), newline=""))
    assert (row["question"], row["answer"], row["further_turns"]) == (asked, said, f"2. {later}\n   {then}")
    (task,) = json.loads(review_files.to_label_studio([drawn], ["x.jpg"]))
    assert task["data"]["further_turns"] == row["further_turns"] and 'value="$further_turns"' in review_files.LABELS
    told = [f"Q {asked}", f"A {said}", f"Q {later}", f"A {then}"]
    explained = explain_text.explained(explain(workspace, drawn.pair.pair))
    for lines in (review_text.drawn([drawn]), explained):
        at = next(number for number, line in enumerate(lines) if line.strip() == told[0])
        assert [line.strip() for line in lines[at : at + 4]] == told
    assert f'[["{later}","{then}"]]' in render(report_data(RunResults(workspace)))
    filled = Filled(place="line 2", pair=drawn.pair.pair, reviewer="ann", verdict="wrong", answer="other")
    with pytest.raises(ReviewError, match="line 2: a conversation has several answers"):
        record(workspace, [filled])


def annotated(**said: Any) -> dict[str, Any]:
    kinds = {"verdict": "choices", "corrected_answer": "textarea", "reason": "textarea"}
    return {
        "completed_by": {"id": 7, "email": "jane@example.org"},
        "was_cancelled": False,
        "result": [
            {
                "from_name": name,
                "to_name": "image",
                "type": kinds[name],
                "value": {"choices" if name == "verdict" else "text": [text]},
            }
            for name, text in said.items()
        ],
    }


def test_an_export_of_label_studio_is_read_and_nobodys_address_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "export.json"
    tasks = [
        {
            "id": 12,
            "data": {"pair": "ab" * 32},
            "annotations": [
                annotated(verdict="wrong", corrected_answer="3", reason="there are three"),
                {**annotated(verdict="right"), "was_cancelled": True},
            ],
        },
        {"id": 13, "data": {"pair": "cd" * 32}, "annotations": []},
    ]
    file.write_text(json.dumps(tasks))
    expected = {"reviewer": "label-studio-7", "verdict": "wrong", "answer": "3", "reason": "there are three"}
    assert review_files.read_reviews(file) == [Filled(place="task 12", pair="ab" * 32, **expected)]
    file.write_text(json.dumps([{"pair": "ab" * 32, "verdict": "wrong"}]))
    with pytest.raises(ReviewError, match="not as JSON-MIN"):
        review_files.read_reviews(file)


def test_a_row_is_named_by_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('pair,verdict,reason\r\na,wrong,"one\r\ntwo"\r\nb,right,\r\n', newline="")
    assert [row.place for row in review_files.read_reviews(tmp_path / "x.csv")] == ["line 2", "line 4"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "line 1 names no column pair, verdict"),
        ("pair,note\r\n", "no column verdict"),
        ("pair,verdict\r\nx,wrong,5\r\n", "line 2 has more cells"),
        ('pair,verdict\r\nx,"wro\r\n', "is no CSV"),
        ("[{", "is no JSON"),
        ("{}", "a list of tasks"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "x.csv").write_text(text, newline="")
    with pytest.raises(ReviewError, match=match):
        review_files.read_reviews(tmp_path / "x.csv")


# --- import


def test_bad_rows_are_named_and_nothing_is_imported(workspace: Workspace) -> None:
    pair = a_sample(workspace).pair
    rows = [
        Filled(place="line 2", pair=pair, reviewer="r1", verdict="wrong"),
        Filled(place="line 3", pair="ab" * 32, reviewer="r1", verdict="wrong"),
        Filled(place="line 4", pair=pair, reviewer="jane@example.org", verdict="wrong"),
        Filled(place="line 5", pair=pair, reviewer="r2", verdict="maybe"),
        Filled(place="line 6", pair=pair, reviewer="", verdict="right"),
        Filled(place="line 7", pair=pair, reviewer="r3", verdict="right", answer="4"),
        Filled(place="line 8", pair=pair, reviewer="r3", verdict="wrong", answer=a_sample(workspace).answer),
        Filled(place="line 9", pair=pair, reviewer="r1", verdict="right"),
    ]
    with pytest.raises(ReviewError, match="nothing was imported, 7 row") as raised:
        record(workspace, rows)
    for line in range(3, 10):
        assert f"line {line}: " in str(raised.value)
    assert ReviewLog(workspace.store).read() is None


def test_importing_twice_adds_nothing_and_what_is_unknown_may_be_skipped(workspace: Workspace) -> None:
    pair = a_sample(workspace).pair
    rows = [vote(pair), vote("ab" * 32)]
    first = record(workspace, rows, skip_unknown=True)
    assert (first.votes, first.known, first.unknown) == (1, 0, ("line 2",))
    written = len(list(workspace.store.list(f"{keys.REVIEWS_LOG}/")))
    again = record(opened(workspace), rows, skip_unknown=True)
    assert (again.votes, again.known) == (0, 1)
    assert len(list(workspace.store.list(f"{keys.REVIEWS_LOG}/"))) == written == 1


def test_votes_are_counted_by_reviewer_with_their_agreement(workspace: Workspace) -> None:
    assert review_text.overview(overview(workspace))[0].startswith("no person has voted yet")
    one, two, three = sorted(released(workspace))[:3]
    record(workspace, [vote(one), vote(two), vote(three, "unsure")])
    record(workspace, [vote(one, reviewer="r2"), vote(two, "right", "r2"), vote(three, "right", "r2")])
    found = overview(workspace)
    assert (found.entry, found.pairs, found.found_wrong, found.shared, found.agreed) == (2, 3, 1, 2, 0.5)
    assert [(each.reviewer, each.verdicts) for each in found.reviewers] == [
        ("r1", {"wrong": 2, "unsure": 1}),
        ("r2", {"wrong": 1, "right": 2}),
    ]
    assert "r1: 0 right, 2 wrong, 1 unsure; 0 corrected" in "\n".join(review_text.overview(found))
    assert revoke(workspace, "r1", [one[:12]]) == [one]
    assert overview(workspace).pairs == 3
    assert revoke(workspace, "r1", None) == sorted([two, three])
    assert [each.reviewer for each in overview(workspace).reviewers] == ["r2"]
    with pytest.raises(ReviewError, match="0 votes of 'r1' are on pairs"):
        revoke(workspace, "r1", [one])


# --- what a vote does


def test_as_gold_votes_change_no_release_and_ask_nothing(workspace: Workspace, tiny_models: TinyModels) -> None:
    record(workspace, [vote(a_sample(workspace).pair, answer="seven")])
    assert publish.publish(opened(workspace)).made is False
    assert tiny_models.requests == 0


def test_a_veto_without_votes_changes_no_release(workspace: Workspace) -> None:
    assert publish.publish(opened(workspace, "veto")).made is False


def test_under_veto_a_wrong_pair_leaves_the_next_release_and_its_correction_comes(
    workspace: Workspace, tiny_models: TinyModels
) -> None:
    before, pair = released(workspace), a_sample(workspace)
    record(workspace, [vote(pair.pair, answer="seven <image>", reason="counted")])
    outlook = release_outlook(opened(workspace, "veto"))
    assert outlook and outlook.lost == {Reason.FOUND_WRONG: 1}
    receipt = publish.publish(opened(workspace, "veto"))
    after = released(workspace)
    (new,) = after.keys() - before.keys()
    assert before.keys() - after.keys() == {pair.pair}
    assert after[new] == before[pair.pair]
    assert receipt.changes and receipt.changes.lost == {"a person found it wrong": 1}
    assert receipt.funnel.rejects[Reason.FOUND_WRONG] == 1
    assert receipt.funnel.units_out == len(after)
    files = files_of(workspace, 2)
    rows = [row for name in ("train", "validation", "test") for row in json.loads(files[f"llava/{name}.json"])]
    (row,) = [row for row in rows if row["id"] == new]
    assert row["conversations"][1]["value"] == "seven ‹image›", "a person's text is as harmless as a teacher's"
    manifest = json.loads(files["manifest.json"])
    assert manifest["made_with"]["rules"]["review.entry"] == 1
    assert manifest["made_with"]["rules"]["review.rule"] == "veto"
    assert b"were left out: 1. Samples with a person's answer, which have no votes: 1." in files["README.md"]
    assert all(b"r1" not in raw for name, raw in files.items() if name.endswith((".json", ".md"))), "names stay out"
    assert tiny_models.requests == 0
    assert publish.publish(opened(workspace, "veto")).made is False
    assert release_outlook(opened(workspace, "veto")).losses == 0  # type: ignore[union-attr]
    assert verify(opened(workspace)).damage == []


def test_judges_are_asked_about_a_correction_where_the_settings_say_so(
    workspace: Workspace, tiny_models: TinyModels
) -> None:
    samples = [each for each in RunResults(workspace).samples if each.variant == "plain"]
    pairs = list({pair.image: pair for pair in samples if pair.pair in released(workspace)}.values())[:4]
    answers = {pair.pair: f"seven {number}" for number, pair in enumerate(pairs)}
    record(workspace, [vote(pair, answer=answer) for pair, answer in answers.items()])
    judged = opened(workspace, "veto", corrections="judged")
    (lacking,) = {each.stage: each.units for each in plan(judged).stages if each.units.high}.items()
    assert lacking[0] == "vote" and 2 * len(pairs) == lacking[1].low, "two votes at least, of three judges"
    assert pipeline.generate(judged).pending == 0
    assert {unit[1] for unit in tiny_models.seen} == {"vote"} and tiny_models.distinct("vote") <= 3 * len(pairs)
    made = {corrected(pair, answers[pair.pair]).pair: pair.pair for pair in pairs}
    accepted = {pair for pair in made if RunResults(judged).verdicts[pair].accepted}
    assert 0 < len(accepted) < len(pairs)
    publish.publish(opened(workspace, "veto", corrections="judged"))
    assert released(workspace).keys() & made.keys() == accepted
    assert released(workspace, 0).keys() - released(workspace).keys() == answers.keys()
    assert b"A person's answer is a sample where judges accept it." in files_of(workspace, 2)["README.md"]
    for pair, corrects in made.items():
        text = "\n".join(explain_text.explained(explain(opened(judged, "veto", corrections="judged"), corrects)))
        assert f"{'accepted' if pair in accepted else 'rejected'} by judges, in " in text
    tiny_models.start(None)
    publish.publish(opened(workspace, "veto"))
    assert made.keys() <= released(workspace).keys(), "and else a reviewer's word is enough"
    assert pipeline.generate(opened(workspace, "veto", corrections="judged")).pending == 0
    assert not tiny_models.requests


def test_explain_tells_what_people_said_and_finds_a_correction_by_its_id(workspace: Workspace) -> None:
    pair = a_sample(workspace)
    assert "people" not in json.dumps(explain(workspace, pair.pair))
    record(workspace, [vote(pair.pair, answer="seven", reason="count \x1b[31mthem")])
    lines = explain_text.explained(explain(opened(workspace, "veto"), pair.pair))
    assert any("the next release is without it" in line for line in lines)
    publish.publish(opened(workspace, "veto"))
    (new,) = released(workspace).keys() - released(workspace, 0).keys()
    for name in (pair.pair, new[:16]):
        text = "\n".join(explain_text.explained(explain(opened(workspace, "veto"), name)))
        assert ": wrong, count [31mthem" in text
        assert f"corrected: A seven (pair {new[:12]}, in v000002)" in text
        assert "not in the latest: a person found it wrong (people: 1 wrong, 0 right)" in text
    assert "the next release" not in "\n".join(explain_text.explained(explain(opened(workspace), pair.pair)))
    record(opened(workspace), [vote(new, reviewer="r2", answer="eight")])
    record(opened(workspace), [vote(corrected(pair, "eight").pair, reviewer="r3", answer=pair.answer)])
    text = "\n".join(explain_text.explained(explain(opened(workspace), corrected(pair, "eight").pair)))
    assert all(f"person {name}" in text for name in ("r1", "r2", "r3")), "a chain that ends where it began"
    revoke(opened(workspace), "r1", None)
    assert explain(opened(workspace), new), "an earlier release holds it"


def test_a_majority_decides_and_of_a_tie_the_last(workspace: Workspace) -> None:
    pair = a_sample(workspace).pair

    def is_out() -> bool:
        publish.publish(opened(workspace, "veto"))
        return pair not in released(workspace)

    record(workspace, [vote(pair, "unsure")])
    assert not is_out()
    record(workspace, [vote(pair)])
    assert is_out()
    record(workspace, [vote(pair, "right", "r2")])
    assert not is_out()
    record(workspace, [vote(pair, "wrong", "r1", reason="again")])  # the same, said later
    assert is_out()
    record(workspace, [vote(pair, "right", "r3")])
    assert not is_out()
    revoke(workspace, "r3", [pair])
    revoke(workspace, "r2", [pair])
    assert is_out()


def test_a_correction_that_is_revoked_or_found_wrong_leaves_too(workspace: Workspace) -> None:
    before, pair = released(workspace), a_sample(workspace)
    record(workspace, [vote(pair.pair, answer="seven")])
    publish.publish(opened(workspace, "veto"))
    (first,) = released(workspace).keys() - before.keys()
    record(opened(workspace), [vote(first, reviewer="r2", answer="eight")])
    receipt = publish.publish(opened(workspace, "veto"))
    assert receipt.changes and receipt.changes.lost == {Reason.FOUND_WRONG: 1}
    (second,) = released(workspace).keys() - before.keys()
    assert second != first
    revoke(workspace, "r1", None)
    receipt = publish.publish(opened(workspace, "veto"))
    assert receipt.changes and receipt.changes.lost == {Loss.UNCORRECTED: 1}
    assert released(workspace) == before


def test_a_corrected_chain_of_thought_is_plain_since_its_reasoning_led_astray(workspace: Workspace) -> None:
    pair = a_sample(workspace, "chain_of_thought")
    record(workspace, [vote(pair.pair, answer="seven")])
    publish.publish(opened(workspace, "veto"))
    new = corrected(pair, "seven").pair
    assert released(workspace)[new] == (pair.image, pair.task_type, "plain")


def test_forgetting_tells_of_votes_and_leaves_them(workspace: Workspace) -> None:
    pair = a_sample(workspace)
    assert forget(workspace, where={"stage": "write"}).reviewed == 0
    record(workspace, [vote(pair.pair)])
    assert forget(workspace, where={"stage": "vote"}).reviewed == 0
    assert forget(workspace, where={"stage": "write", "image": pair.image}, dry_run=False).reviewed == 1
    assert pipeline.generate(opened(workspace)).pending == 0  # the teacher writes the same again
    publish.publish(opened(workspace, "veto"))
    assert pair.pair not in released(workspace)


def test_a_takedown_erases_what_was_said_of_the_images_pairs(workspace: Workspace) -> None:
    pair = a_sample(workspace)
    other = next(each for each in RunResults(workspace).samples if each.image != pair.image)
    record(workspace, [vote(pair.pair, answer="seven"), vote(other.pair)])
    record(workspace, [vote(pair.pair, reviewer="r2")])
    revoke(workspace, "r2", [pair.pair])
    publish.publish(opened(workspace, "veto"))
    take_down(opened(workspace), [pair.image])
    assert list(left(opened(workspace))) == []
    assert ReviewLog(workspace.store).images() == {other.image}
    assert all(
        pair.pair.encode() not in workspace.store.get(each.key) for each in workspace.store.list(keys.REVIEWS_LOG)
    )
    reviews = ReviewLog(workspace.store).read()
    assert reviews is not None and reviews.entry == 3, "the number of the newest entry stays"
    pipeline.generate(opened(workspace, "veto"))
    receipt = publish.publish(opened(workspace, "veto"))
    assert receipt.changes and set(receipt.changes.lost) == {Loss.TAKEN_DOWN}
    with pytest.raises(ReviewError, match="the store has no pair"):
        record(opened(workspace), [vote(pair.pair)])


# --- the command


def test_the_command_draws_exports_imports_lists_and_revokes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = golden_workspace(tmp_path / "store")
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(golden.settings.model_dump(mode="json")), encoding="utf-8")

    def said(*arguments: str, code: int = 0) -> Any:
        assert main(["review", *arguments, "--settings", str(settings), "--json"]) == code
        out = capsys.readouterr()
        return out.err if code else json.loads(out.out)

    drawn = said("draw", "-n", "3")["pairs"]
    out = tmp_path / "review.csv"
    assert said("export", "-n", "3", "--to", str(out))["pairs"] == len(drawn)
    raw = out.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf"), "so that a spreadsheet reads it as UTF-8"
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    assert [row["pair"] for row in rows] == [each["pair"]["pair"] for each in drawn]
    assert all((tmp_path / row["picture"]).read_bytes().startswith(b"\xff\xd8") for row in rows)
    assert said("import", str(out))["votes"] == 0, "nobody has filled anything in"
    rows[0]["verdict"] = "right"
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert "line 2: it names no reviewer" in said("import", str(out), code=1)
    assert said("import", str(out), "--reviewer", "r1")["votes"] == 1
    assert said("import", str(out), "--reviewer", "r1")["known"] == 1
    assert said("list")["reviewers"] == [{"reviewer": "r1", "verdicts": {"right": 1}, "corrections": 0}]
    assert "name pairs, or give --all" in said("revoke", "--reviewer", "r1", code=1)
    assert said("revoke", "--reviewer", "r1", "--all")["revoked"] == [rows[0]["pair"]]
    studio = tmp_path / "review.json"
    url = "/data/local-files/?d=review-pictures"
    made = said("export", "-n", "3", "--to", str(studio), "--format", "label-studio", "--pictures-at", url)
    assert [Path(file).name for file in made["files"]] == ["review.json", "review.xml"]
    tasks = json.loads(studio.read_text("utf-8"))
    assert all(task["data"]["image"].startswith(f"{url}/") for task in tasks)
    ElementTree.parse(made["files"][1])
    with pytest.raises(SystemExit):
        main(["review", "draw", "--by", "mood"])
    assert "'mood' is none of task_type, branch" in capsys.readouterr().err
