"""Any history of operations comes to what one run over its end comes to, and asks for nothing twice.

A new operation is one more rule here, and a method of ``World`` that does it and says what is expected of it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskgalaxy_ops.extensions import ALWAYS_RELEASED, RELEASE_FORMATS
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.taxonomy import aliases

from .models import chat_model
from .reckoning import GERMAN, GROUPS
from .wire import Fate
from .world import CAPTIONS, DOCUMENTS, IMAGES, JUNK, PAGES, PAPERS, PICTURES, QUALITIES, STAGES, TYPES, World

SOURCES = ("north", "south")
REVIEWERS = ("r1", "r2")
JUDGES = ("anna", "bert", "carl", "dora")

files = st.lists(st.sampled_from(IMAGES), min_size=1, max_size=8).map(lambda ids: [PICTURES[image] for image in ids])
captions = st.dictionaries(st.sampled_from(IMAGES), st.sampled_from(sorted(CAPTIONS)))
fields = st.sampled_from([[], ["caption"], ["alt"], ["alt", "caption"]])
words = st.sampled_from(["", "in other words", "once more"])
revisions = st.sampled_from([None, "second"])
modes = st.sampled_from(["chat", "batch"])
deaths = st.none() | st.integers(0, 99)
VARIANTS = (
    ["plain"],
    ["chain_of_thought"],
    ["chain_of_thought", "plain"],
    ["plain", GROUPS],
    ["plain", GERMAN],
    [GERMAN],
)
weight = st.sampled_from([0.2, 1, 3])
PATTERNS: tuple[dict[str, list[str]], ...] = (
    {},
    {"plain": ["!shape~round"]},
    {"plain": ["colour"], "chain_of_thought": ["*~round*"]},
)
mixes = st.sampled_from(
    [
        {},
        {"repeats": {"same": 1}},
        {"licences": ["unknown"]},
        {"balance": {"floor": 2, "forms": {"plain": 1}}},
        {"balance": {"samples": 5, "temperature": 2, "task_types": 0.5}},
    ]
)
alike = st.sampled_from([None, {}, {"rule": "drop"}, {"rule": "mark", "largest_group": 1}])
aim = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda n: {"samples": n[0], "tries": max(1, sum(n))})
aims = st.none() | st.builds(
    lambda each, branches: {**each, "branches": branches},
    aim,
    st.dictionaries(st.sampled_from(["colour", "shape~round", "shape~round~ring"]), aim, max_size=2),
)


class History(RuleBasedStateMachine):
    """One rule an operation; what must hold is checked after each, or after the next where two come at once."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.world = World(self.folder)
        self.around = self.world.in_process()
        self.around.__enter__()
        self.former = [self.world.chosen]
        self.unseen = 0  # operations of which the next check will come too early

    @initialize(files=files, mode=modes, deaths=deaths, copy=st.booleans(), enough=aims)
    def first_source(
        self, files: list[bytes], mode: str, deaths: int | None, copy: bool, enough: dict[str, Any] | None
    ) -> None:
        self.world.ask_by(mode, mode)
        self.world.aim(enough)
        self.world.deaths = deaths
        self.world.register("north", files, copy=copy)

    @invariant()
    def one_run_over_the_end_is_the_same(self) -> None:
        if self.world.chosen not in self.former:
            self.former.append(self.world.chosen)
        if self.unseen:
            self.unseen -= 1
        else:
            self.world.check()
        self.world.begin()

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # else it has failed already
                self.world.check_end()
        finally:
            self.around.__exit__(None, None, None)
            shutil.rmtree(self.folder)

    @precondition(lambda self: not self.unseen)
    @rule()
    def the_next_two_come_without_a_run_between(self) -> None:
        self.unseen = 2

    # Images

    @rule(source=st.sampled_from(SOURCES), files=files, junk=st.booleans(), copy=st.booleans())
    def a_source_is_scanned(self, source: str, files: list[bytes], junk: bool, copy: bool) -> None:
        assume(not self.world.denied.issuperset(sha256_hex(raw) for raw in files))
        self.world.register(source, files + [JUNK] * junk, copy=copy)

    @rule(documents=st.lists(st.sampled_from(tuple(DOCUMENTS)), min_size=1, max_size=3), copy=st.booleans())
    def documents_come_go_or_are_replaced(self, documents: list[bytes], copy: bool) -> None:
        assume(not self.world.denied.issuperset(page for document in documents for page in DOCUMENTS[document]))
        self.world.publish_papers(documents, copy=copy)

    @precondition(lambda self: self.world.sources)
    @rule(data=st.data())
    def a_source_is_removed(self, data: st.DataObject) -> None:
        self.world.remove(data.draw(st.sampled_from(sorted(self.world.sources))))

    @precondition(lambda self: self.world.sources.keys() - {PAPERS})
    @rule(captions=captions, data=st.data())
    def a_source_says_something_else(self, captions: dict[str, str], data: st.DataObject) -> None:
        source = data.draw(st.sampled_from(sorted(self.world.sources.keys() - {PAPERS})))
        assume(not self.world.denied.issuperset(map(sha256_hex, self.world.sources[source])))
        self.world.say(source, captions)

    @precondition(lambda self: len(self.world.denied) < len(IMAGES) // 2)
    @rule(images=st.sets(st.sampled_from(IMAGES + PAGES), min_size=1, max_size=2))
    def images_are_taken_down(self, images: set[str]) -> None:
        self.world.take_down(images)

    @rule(data=st.data())
    def a_release_is_pushed(self, data: st.DataObject) -> None:
        releases = self.world.releases
        assume(releases)
        self.world.push(data.draw(st.sampled_from(releases)))

    # Task types

    @rule(paths=st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True))
    def task_types_are_added(self, paths: list[str]) -> None:
        self.world.add(paths)

    @precondition(lambda self: "live" in self.world.nodes.values())
    @rule(data=st.data())
    def a_branch_is_retired(self, data: st.DataObject) -> None:
        nodes = sorted(path for path, status in self.world.nodes.items() if status == "live")
        self.world.retire(data.draw(st.sampled_from(nodes)))

    @precondition(lambda self: "live" in self.world.nodes.values())
    @rule(data=st.data(), name=st.sampled_from(["hue", "tint", "marks"]), keep=st.booleans())
    def a_branch_is_renamed(self, data: st.DataObject, name: str, keep: bool) -> None:
        old = data.draw(st.sampled_from(self.world.live_nodes))
        new = "~".join([*old.split("~")[:-1], name])
        self.world.relocate(lambda base: aliases.rename(base, old, name, keep=keep), [old], new, keep)

    @precondition(lambda self: "live" in self.world.nodes.values())
    @rule(data=st.data(), keep=st.booleans())
    def a_branch_is_moved(self, data: st.DataObject, keep: bool) -> None:
        old = data.draw(st.sampled_from(self.world.live_nodes))
        below = data.draw(st.sampled_from(["", *self.world.live_nodes]))
        new = "~".join(filter(None, [below, old.split("~")[-1]]))
        self.world.relocate(lambda base: aliases.move(base, old, below, keep=keep), [old], new, keep)

    @precondition(lambda self: "live" in self.world.nodes.values())
    @rule(data=st.data(), keep=st.booleans())
    def branches_are_merged(self, data: st.DataObject, keep: bool) -> None:
        live = self.world.live_nodes
        old = data.draw(st.lists(st.sampled_from(live), min_size=1, max_size=2, unique=True))
        into = data.draw(st.sampled_from([*live, "shape~merged"]))
        assume(into not in old)
        self.world.relocate(lambda base: aliases.merge(base, old, into, keep=keep), old, into, keep)

    # Settings

    @rule(k=st.integers(1, 5))
    def k_is_another(self, k: int) -> None:
        self.world.change("match", k=k)

    @rule(least=st.sampled_from([None, -0.5, 0.0, 0.5]), per_branch=st.sampled_from([None, 1, 2]))
    def breadth_is_another(self, least: float | None, per_branch: int | None) -> None:
        self.world.change("match", min_similarity=least, per_branch=per_branch)

    @rule(weight=st.sampled_from([None, 0.1, 1.0]))
    def starving_task_types_are_preferred_or_not(self, weight: float | None) -> None:
        self.world.change("match", prefer_starving=weight)

    @rule()
    def coverage_is_recorded(self) -> None:
        self.world.record_coverage()

    @rule(data=st.data())
    def the_quorum_is_another(self, data: st.DataObject) -> None:
        self.world.change("vote", quorum=data.draw(st.integers(1, len(self.world.chosen["judges"]))))

    @rule(least=st.sampled_from([None, 0.3, 0.6]), seed=st.integers(0, 3))
    def a_verdict_is_by_a_probability_or_by_quorum(self, least: float | None, seed: int) -> None:
        self.world.record_judges(JUDGES, seed)
        self.world.change("vote", rule="quorum" if least is None else {"probability": least})

    @rule(seed=st.integers(0, 3))
    def judges_are_recorded(self, seed: int) -> None:
        self.world.record_judges(JUDGES, seed)

    @rule(names=st.lists(st.sampled_from(JUDGES), min_size=1, unique=True), mode=modes, data=st.data())
    def the_judges_are_others(self, names: list[str], mode: str, data: st.DataObject) -> None:
        mode = "chat" if self.world.models.broken else mode
        self.world.judge([chat_model(name, revision=data.draw(revisions), mode=mode) for name in names])

    @rule(revision=revisions, quality=st.sampled_from(QUALITIES))
    def the_teacher_is_another(self, revision: str | None, quality: int) -> None:
        self.world.change("teacher", revision=revision, image_quality=quality)

    @rule(name=st.sampled_from(["filter", "write_plain", "write_chain_of_thought", "vote"]), words=words)
    def a_prompt_is_another(self, name: str, words: str) -> None:
        self.world.prompt(name, words)

    @rule(variants=st.sampled_from(VARIANTS))
    def variants_are_others(self, variants: list[str]) -> None:
        self.world.write_in(variants, shares=None, suits={})

    @rule(share=st.sampled_from([0, 0.5, 1]))
    def other_images_questions_are_asked_or_not(self, share: float) -> None:
        self.world.swap(share)

    @rule(weights=st.none() | st.tuples(weight, weight), patterns=st.sampled_from(PATTERNS))
    def shares_of_forms_are_others(self, weights: tuple[float, float] | None, patterns: dict[str, list[str]]) -> None:
        forms = ["chain_of_thought", "plain"]
        shares = weights and dict(zip(forms, weights, strict=True))
        self.world.write_in(forms, shares=shares, suits=patterns)

    @rule(answers=st.integers(1, 3))
    def questions_are_answered_more_or_less_often(self, answers: int) -> None:
        self.world.answer(answers)

    @rule(show_answer=st.booleans(), audit_share=st.sampled_from([0, 0.2, 1]))
    def what_judges_are_shown_is_another(self, show_answer: bool, audit_share: float) -> None:
        self.world.change("vote", show_answer=show_answer, audit_share=audit_share)
        if not show_answer:
            self.world.change("write", answers=1)
            self.world.change("vote", planted=0)

    @rule(tries=st.none() | st.sampled_from([(1, 1), (2, 2)]), does=st.sampled_from(["mark", "reject"]))
    def a_blind_probe_is_set_or_not(self, tries: tuple[int, int] | None, does: str) -> None:
        self.world.probe(tries and {"tries": tries[0], "right": tries[1], "rule": does})

    @rule(share=st.sampled_from([0, 0.3, 1]))
    def errors_are_planted_or_not(self, share: float) -> None:
        self.world.plant(share)

    @rule(filter=fields, write=fields, vote=fields, release=fields)
    def the_context_that_is_shown_is_another(self, **shown: list[str]) -> None:
        if self.world.chosen["write"].get("fused"):  # one request shows one context
            shown["filter"] = shown["write"]
        for section, context in shown.items():
            self.world.change(section, context=context)

    @rule(fused=st.booleans(), words=words)
    def verdicts_and_questions_are_asked_for_together_or_apart(self, fused: bool, words: str) -> None:
        if fused:
            self.world.change("filter", context=self.world.chosen["write"].get("context", []))
        self.world.change("write", fused=fused)
        self.world.prompt("filter", words)

    @rule(refused=st.sampled_from([None, "number 3", "number [0-4]"]))
    def checks_are_others(self, refused: str | None) -> None:
        rules = {"refused": {"of": ["question"], "patterns": [rf"\b{refused}\b"]}}
        self.world.change("write", checks=None if refused is None else {"rules": rules})

    @rule(enough=aims)
    def targets_are_set_raised_lowered_or_removed(self, enough: dict[str, Any] | None) -> None:
        self.world.aim(enough)

    @rule(
        cap=st.sampled_from([None, 1, 2]),
        shares=st.sampled_from([(0, 0), (0.2, 0.2), (0.5, 0.3)]),
        copied=st.sampled_from([0, 2_000_000_000]),
        bits=st.sampled_from([-1, 0, 2]),
        variants=st.sampled_from([None, ["plain"]]),
        alike=alike,
        mix=mixes,
    )
    def the_release_is_cut_otherwise(
        self, cap: int | None, shares: Any, copied: int, bits: int, variants: Any, alike: Any, mix: dict[str, Any]
    ) -> None:
        test, validation = shares
        self.world.change(
            "release",
            cap=cap,
            test=test,
            validation=validation,
            copy_images_up_to=copied,
            near_duplicate_bits=bits,
            variants=variants,
            near_duplicates=alike,
            **{**dict.fromkeys(["repeats", "licences", "balance"]), **mix},
        )

    @rule(formats=st.sampled_from([ALWAYS_RELEASED, tuple(RELEASE_FORMATS.shipped)]))
    def the_release_has_other_formats(self, formats: tuple[str, ...]) -> None:
        self.world.change("release", formats=formats)

    @rule(units=st.integers(1, 5), blocks=st.integers(1, 5), structured=st.sampled_from(["json_schema", "text"]))
    def the_way_of_asking_is_another(self, units: int, blocks: int, structured: str) -> None:
        self.world.change("run", units_a_request=units, block_calls=blocks)
        transport = {"structured": structured, "base_url": f"http://{units}.test/v1", "timeout_seconds": 60 + blocks}
        self.world.change("teacher", **transport)
        self.world.judge([{**judge, **transport} for judge in self.world.chosen["judges"]])

    @precondition(lambda self: self.world.models.broken is None)
    @rule(teacher=modes, judges=modes)
    def models_are_asked_by_chat_or_by_batch(self, teacher: str, judges: str) -> None:
        self.world.ask_by(teacher, judges)

    @rule(data=st.data())
    def settings_are_rolled_back(self, data: st.DataObject) -> None:
        self.world.models.broken = None  # they may have asked by batch
        self.world.chosen = self.former[data.draw(st.integers(0, len(self.former) - 1))]

    # People

    @rule(data=st.data(), reviewer=st.sampled_from(REVIEWERS), verdict=st.sampled_from(["right", "wrong", "unsure"]))
    def a_person_votes_on_a_pair(self, data: st.DataObject, reviewer: str, verdict: str) -> None:
        pairs = self.world.pairs()
        assume(pairs)
        self.world.review(pairs[data.draw(st.sampled_from(sorted(pairs)))], reviewer, verdict, None)

    @rule(data=st.data(), reviewer=st.sampled_from(REVIEWERS), answer=st.sampled_from(["seven", "eight"]))
    def a_person_corrects_a_pair(self, data: st.DataObject, reviewer: str, answer: str) -> None:
        pairs = {pair: each for pair, each in self.world.pairs().items() if each.answer != answer}
        assume(pairs)
        self.world.review(pairs[data.draw(st.sampled_from(sorted(pairs)))], reviewer, "wrong", answer)

    @rule(reviewer=st.sampled_from(REVIEWERS))
    def a_person_takes_all_back(self, reviewer: str) -> None:
        self.world.revoke(reviewer)

    @rule(decides=st.sampled_from(["gold", "veto"]), corrections=st.sampled_from(["accepted", "judged"]))
    def what_a_vote_does_is_another(self, decides: str, corrections: str) -> None:
        self.world.decide(decides, corrections)

    # Benchmarks

    @rule(
        name=st.sampled_from(["one", "two"]),
        images=st.lists(st.sampled_from(IMAGES), min_size=1, max_size=2, unique=True),
    )
    def a_benchmark_is_added(self, name: str, images: list[str]) -> None:
        self.world.add_benchmark(name, images)

    @precondition(lambda self: self.world.benchmarks)
    @rule(data=st.data())
    def a_benchmark_is_removed(self, data: st.DataObject) -> None:
        self.world.remove_benchmark(data.draw(st.sampled_from(sorted(self.world.benchmarks))))

    # What is in the way, where another prompt gives something to ask

    @rule(calls=st.none() | st.integers(0, 8), words=words)
    def the_budget_ends_or_is_raised(self, calls: int | None, words: str) -> None:
        self.world.change("budget", max_calls=None if calls is None else self.world.models.received + calls)
        self.world.prompt("filter", words)

    @rule(
        away=st.dictionaries(st.sampled_from(["teacher", *JUDGES]), st.sampled_from(["nobody", "error", "no key"])),
        words=words,
    )
    def models_are_away_or_return(self, away: dict[str, str], words: str) -> None:
        self.world.models.away = away
        self.world.prompt("vote", words)

    # One at most: of two, most of the teacher's replies may be refusals, and a run leaves such a model alone.
    @rule(images=st.sets(st.sampled_from(IMAGES), max_size=1), words=words)
    def a_provider_refuses_images(self, images: set[str], words: str) -> None:
        self.world.models.minded = images
        self.world.prompt("write_plain", words)

    @rule(model=st.sampled_from(["teacher", *JUDGES]), image=st.none() | st.sampled_from(IMAGES), words=words)
    def a_model_fails_at_an_image_for_ever_or_does_not(self, model: str, image: str | None, words: str) -> None:
        self.world.ask_by("chat", "chat")
        self.world.models.broken = None if image is None else (model, image)
        self.world.prompt("filter", words)

    @rule(bad=st.sets(st.sampled_from(["teacher", *JUDGES]), max_size=2), words=words)
    def models_turn_bad_or_are_mended(self, bad: set[str], words: str) -> None:
        self.world.models.bad = bad
        self.world.prompt("vote", words)

    @rule(served=st.none() | st.integers(0, 8), words=words)
    def models_die_in_the_middle_or_return(self, served: int | None, words: str) -> None:
        self.world.models.left = served
        self.world.prompt("write_plain", words)

    @rule(fate=st.sampled_from(["whole", "partial", "expired", "failed"]), words=words)
    def batches_end_otherwise(self, fate: Fate, words: str) -> None:
        self.world.wire.fate = fate
        self.world.prompt("filter", words)

    @rule(held=st.booleans(), lags=st.booleans(), deaf=st.booleans(), words=words)
    def batches_take_long_or_are_hard_to_see(self, held: bool, lags: bool, deaf: bool, words: str) -> None:
        wire = self.world.wire
        wire.held, wire.lags, wire.deaf = held, lags, deaf
        self.world.prompt("write_plain", words)

    @rule(deaths=deaths)
    def workers_die_or_do_not(self, deaths: int | None) -> None:
        self.world.deaths = deaths

    # Runs, code and upkeep

    @precondition(lambda self: self.world.sources)
    @rule(last_stage=st.sampled_from(STAGES), wait=st.booleans(), data=st.data())
    def a_part_is_run(self, last_stage: str, wait: bool, data: st.DataObject) -> None:
        source = data.draw(st.none() | st.sampled_from(sorted(self.world.sources)))
        self.world.run(sources=None if source is None else [source], last_stage=last_stage, wait=wait)

    @precondition(lambda self: self.world.sources)
    @rule(data=st.data(), count=st.integers(1, 3))
    def lanes_are_dealt(self, data: st.DataObject, count: int) -> None:
        self.world.deal(data.draw(st.sampled_from(sorted(self.world.sources))), count)

    @precondition(lambda self: self.world.dealt)
    @rule(last_stage=st.sampled_from(STAGES), data=st.data())
    def a_lane_is_run(self, last_stage: str, data: st.DataObject) -> None:
        self.world.run(lane=data.draw(st.sampled_from(self.world.dealt)), last_stage=last_stage)

    @rule(stage=st.sampled_from(STAGES), version=st.sampled_from([1, 2]))
    def code_is_upgraded_or_rolled_back(self, stage: str, version: int) -> None:
        self.world.upgrade(stage, version)

    @rule(parser=st.sampled_from([1, 2]))
    def replies_are_read_otherwise(self, parser: int) -> None:
        self.world.read_by(parser)

    @rule()
    def replies_are_read_again(self) -> None:
        self.world.read_again()

    @rule(model=st.sampled_from(["teacher", *JUDGES]))
    def a_models_answers_are_forgotten(self, model: str) -> None:
        self.world.forget(lambda unit: unit.name == model, model=model)

    @rule(stage=st.sampled_from(STAGES[1:]), image=st.sampled_from(IMAGES))
    def an_images_answers_are_forgotten(self, stage: str, image: str) -> None:
        where = {"stage": stage, "image": image[:12]}
        self.world.forget(lambda unit: unit.stage == stage and image in unit.images, where=where)

    @rule(data=st.data())
    def the_answers_of_some_days_are_forgotten(self, data: st.DataObject) -> None:
        moments, given_at = self.world.moments, self.world.models.given_at
        first = data.draw(st.integers(0, len(moments) - 1))
        last = data.draw(st.integers(first, len(moments) - 1))
        until = moments[last + 1] if last + 1 < len(moments) else None
        self.world.forget(lambda unit: first <= given_at[unit] <= last, since=moments[first], until=until)

    @rule()
    def refusals_are_forgotten(self) -> None:
        standing = self.world.models.standing
        self.world.forget(lambda unit: standing[unit].terminal == "refused", where={"terminal": "refused"})

    @rule()
    def garbage_is_collected(self) -> None:
        self.world.collect()

    @rule()
    def logs_are_compacted(self) -> None:
        self.world.compact()


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=max(50, settings().max_examples), stateful_step_count=10)
