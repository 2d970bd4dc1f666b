"""Voting: who is asked while a verdict is open, and what the votes come to, against the plain definition."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgalaxy_ops.generation.stages.vote import vote_template, vote_unit, voted, votes_needed
from taskgalaxy_ops.generation.vote_rule import MISSING, MeasuredVote, Probable, Quorum
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.records import Answer, Pair, Reason, Verdict, Vote, pair_id
from taskgalaxy_ops.settings import Model, ProbabilityRule, VoteSettings
from taskgalaxy_ops.storage.judge_log import JudgeMeasure
from taskgalaxy_ops.storage.shards import short

YES, NO, NONE = 1, 0, None  # NONE: an abstention


def judges(n, show_answer=True):
    models = [Model(name=f"j{i}", base_url="http://x/v1", model=f"m{i}") for i in range(n)]
    return [vote_template("Vote.", model, show_answer) for model in models]


def make_pair(number, variant="plain", reasoning=None):
    question, answer = f"What is {number}?", f"{number}"
    name = pair_id("i1", "a~b", variant, question, answer, reasoning)
    return Pair(name, "i1", "a~b", variant, question, answer, reasoning)


def answer_of(vote):
    if vote is NONE:
        return Answer(terminal=Reason.REFUSED, detail="content filter")
    return Answer({"vote": vote, "reason": "yes" if vote else "no"})


def rules(quorum=2, audit=0.0, show_answer=True):
    return VoteSettings(quorum=quorum, audit_share=audit, show_answer=show_answer)


def answers_for(questions, pair, votes):
    """Answers of the judges whose vote is given; "?" is none yet."""
    return {
        vote_unit(question, pair).key: answer_of(vote)
        for question, vote in zip(questions, votes, strict=True)
        if vote != "?"
    }


def needed_of(questions, pair, settings, answers):
    """Indices of the judges who are asked now."""
    return [i for i, units in enumerate(votes_needed([pair], questions, settings, answers)) if units]


def run(questions, pair, settings, votes, answers=None):
    """Ask until nothing is needed; gives the judges asked, in the order of asking, and the outcome."""
    answers = dict(answers or {})
    asked = []
    while needed := needed_of(questions, pair, settings, answers):
        asked += needed
        for index in needed:
            answers[vote_unit(questions[index], pair).key] = answer_of(votes[index])
    return asked, voted([pair], questions, settings, answers)


# The definition: judges speak in order until what the rest say can change nothing.


def is_open(before, left, quorum):
    """Whether what is left to say decides: both verdicts are still possible."""
    approvals = sum(vote or 0 for vote in before)
    return {approvals + sum(rest) >= quorum for rest in itertools.product((0, 1), repeat=left)} == {True, False}


def oracle(votes, quorum):
    """How many judges speak, and the verdict."""
    spoken = 0
    while spoken < len(votes) and is_open(votes[:spoken], len(votes) - spoken, quorum):
        spoken += 1
    return spoken, sum(vote or 0 for vote in votes[:spoken]) >= quorum


def oracle_needed(known, quorum):
    """Judges without an answer who will be needed whatever the missing ones before them say."""
    needed = []
    for place, vote in enumerate(known):
        missing = [i for i in range(place) if known[i] == "?"]
        prefixes = []
        for said in itertools.product((0, 1), repeat=len(missing)):
            prefix = list(known[:place])
            for i, value in zip(missing, said, strict=True):
                prefix[i] = value
            prefixes.append(prefix)
        # Open at this judge's turn, and so at every turn before it.
        if vote == "?" and all(is_open(prefix, len(known) - place, quorum) for prefix in prefixes):
            needed.append(place)
    return needed


SIZES = [(n, quorum) for n in range(1, 6) for quorum in range(1, min(n, 3) + 1)]


@pytest.mark.parametrize(("n", "quorum"), SIZES)
def test_verdicts_are_those_of_the_definition(n, quorum):
    questions, pair = judges(n), make_pair(1)
    for votes in itertools.product((YES, NO, NONE), repeat=n):
        spoken, accepted = oracle(votes, quorum)
        asked, found = run(questions, pair, rules(quorum), votes)
        assert asked == list(range(spoken)), votes
        assert found.verdicts == [Verdict(pair.pair, accepted, sum(vote or 0 for vote in votes[:spoken]), spoken)], (
            votes
        )
        assert [vote.vote for vote in found.votes] == list(votes[:spoken])
        assert found.samples == [pair] * accepted
        assert len(found.rejects) == (not accepted)
        assert found.pending == 0


@pytest.mark.parametrize(("n", "quorum"), SIZES)
def test_only_those_are_asked_whose_turn_is_certain(n, quorum):
    questions, pair = judges(n), make_pair(1)
    for known in itertools.product((YES, NO, "?"), repeat=n):
        answers = answers_for(questions, pair, known)
        assert needed_of(questions, pair, rules(quorum), answers) == oracle_needed(known, quorum), known


@pytest.mark.parametrize(("n", "quorum"), SIZES)
def test_answers_that_are_there_already_save_calls_and_change_no_verdict(n, quorum):
    """Whatever lies in the journal, from other settings or another order of judges, the same data come out."""
    questions, pair = judges(n), make_pair(1)
    rng = random.Random(n * 10 + quorum)
    for votes in itertools.product((YES, NO, NONE), repeat=n):
        there = [i for i in range(n) if rng.random() < 0.5]
        answers = answers_for(questions, pair, [vote if i in there else "?" for i, vote in enumerate(votes)])
        asked, found = run(questions, pair, rules(quorum), votes, answers)
        without, same = run(questions, pair, rules(quorum), votes)
        assert found == same
        assert asked == [i for i in without if i not in there]


def test_the_third_judge_is_asked_only_where_the_first_two_disagree():
    questions, pair = judges(3), make_pair(1)
    for first, second, third in itertools.product((YES, NO), (YES, NO), ("?",)):
        assert needed_of(questions, pair, rules(), {}) == [0, 1]
        answers = answers_for(questions, pair, (first, second, third))
        assert needed_of(questions, pair, rules(), answers) == ([2] if first != second else [])
    for first, second in ((YES, NONE), (NONE, YES)):
        assert needed_of(questions, pair, rules(), answers_for(questions, pair, (first, second, "?"))) == [2]
    for first, second in ((NO, NONE), (NONE, NO), (NONE, NONE)):
        assert needed_of(questions, pair, rules(), answers_for(questions, pair, (first, second, "?"))) == []


def test_a_judge_who_gives_no_reply_leaves_the_verdict_open():
    questions, pair = judges(3), make_pair(1)
    found = voted([pair], questions, rules(), answers_for(questions, pair, (YES, "?", "?")))
    assert (found.pending, found.votes, found.verdicts, found.samples, found.rejects) == (1, [], [], [], [])


# Abstentions


def test_silence_decided_is_told_from_a_no():
    questions, pair = judges(3), make_pair(1)
    reasons = {}
    for votes in itertools.product((YES, NO, NONE), repeat=3):
        _, found = run(questions, pair, rules(), votes)
        if found.rejects:
            reasons[votes] = found.rejects[0].reason
    assert reasons[NO, NO, YES] == reasons[YES, NO, NO] == Reason.BELOW_QUORUM
    assert reasons[NO, NONE, YES] == Reason.BELOW_QUORUM, "one No and one silence: two approvals were out of reach"
    assert reasons[YES, NONE, NO] == reasons[NONE, NONE, NONE] == reasons[YES, NO, NONE] == Reason.ABSTAINED


def test_a_reject_says_who_said_what():
    questions = judges(3)
    pair = make_pair(1, "chain_of_thought", "because")
    _, found = run(questions, pair, rules(), (YES, NONE, NO))
    (reject,) = found.rejects
    assert reject.detail == "j0 1: yes; j1 abstained: refused: content filter; j2 0: no"
    assert (reject.stage, reject.pair, reject.variant) == ("vote", pair.pair, "chain_of_thought")
    assert found.votes[1] == Vote(pair.pair, "j1", None, "refused: content filter", False)


# Audits


def audited(number, share):
    return draw("audit", make_pair(number).pair) < share


@pytest.mark.parametrize(("n", "quorum"), SIZES)
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_an_audit_never_changes_a_verdict(n, quorum, share):
    questions = judges(n)
    rng = random.Random(3)
    for number in range(40):
        pair = make_pair(number)
        votes = rng.choices((YES, NO, NONE), k=n)
        spoken, _ = oracle(votes, quorum)
        asked, plain = run(questions, pair, rules(quorum), votes)
        more, found = run(questions, pair, rules(quorum, share), votes)
        assert (found.verdicts, found.samples) == (plain.verdicts, plain.samples)
        assert [(r.pair, r.reason) for r in found.rejects] == [(r.pair, r.reason) for r in plain.rejects]
        if audited(number, share):
            assert more == list(range(n)), "every judge at once"
            assert [vote.vote for vote in found.votes] == votes
            assert [vote.audit for vote in found.votes] == [False] * spoken + [True] * (n - spoken)
        else:
            assert more == asked
            assert found == plain


def test_the_share_of_audits_is_that_of_the_settings_and_grows_by_adding():
    chosen = {share: {n for n in range(4000) if audited(n, share)} for share in (0.0, 0.1, 0.5, 1.0)}
    assert chosen[0.0] < chosen[0.1] < chosen[0.5] < chosen[1.0] == set(range(4000))
    assert not chosen[0.0]
    assert 300 < len(chosen[0.1]) < 500
    questions = judges(3)
    pairs = [make_pair(n) for n in range(400)]
    third = votes_needed(pairs, questions, rules(audit=0.1), {})[2]
    assert len(third) == len(chosen[0.1] & set(range(400)))


# Later changes


@pytest.mark.parametrize("quorum", [1, 2])
def test_a_new_judge_is_asked_only_where_it_reopens_the_verdict(quorum):
    questions, pair = judges(3), make_pair(1)
    for votes in itertools.product((YES, NO, NONE), repeat=3):
        asked, _ = run(questions[:2], pair, rules(quorum), votes)
        answers = answers_for(questions, pair, [vote if i in asked else "?" for i, vote in enumerate(votes)])
        again, found = run(questions, pair, rules(quorum), votes, answers)
        spoken, accepted = oracle(votes, quorum)
        assert sorted([*asked, *again]) == list(range(spoken)), "nobody twice, nobody for nothing"
        assert found.verdicts[0].accepted == accepted


def test_a_higher_quorum_asks_those_who_were_skipped():
    questions, pair = judges(3), make_pair(1)
    asked, _ = run(questions, pair, rules(1), (YES, YES, YES))
    assert asked == [0]
    answers = answers_for(questions, pair, (YES, "?", "?"))
    assert run(questions, pair, rules(2), (YES, YES, YES), answers)[0] == [1]
    assert run(questions, pair, rules(3), (YES, YES, YES), answers)[0] == [1, 2]


def test_a_judge_who_left_counts_no_more_and_one_who_is_put_first_is_heard_first():
    questions, pair = judges(3), make_pair(1)
    answers = answers_for(questions, pair, (YES, NO, YES))
    assert voted([pair], questions[1:], rules(), answers).verdicts == [Verdict(pair.pair, False, 0, 1)]
    assert voted([pair], [questions[2], *questions[:2]], rules(), answers).verdicts == [Verdict(pair.pair, True, 2, 2)]


# Units


def test_a_judge_is_shown_the_answer_only_where_it_is_to_be():
    shown, hidden = judges(1)[0], judges(1, show_answer=False)[0]
    plain, thought = make_pair(1), make_pair(1, "chain_of_thought", "because")
    assert vote_unit(shown, plain).item == {"task_type": "a~b", "question": "What is 1?", "answer": "1"}
    assert vote_unit(shown, thought).item == {**vote_unit(shown, plain).item, "reasoning": "because"}
    assert vote_unit(hidden, thought) == vote_unit(hidden, plain), "the same question is asked once"
    assert vote_unit(hidden, plain).item == {"task_type": "a~b", "question": "What is 1?"}
    assert vote_unit(hidden, plain).key != vote_unit(shown, plain).key


def test_two_judges_with_models_of_their_own_share_no_unit():
    first, second = judges(2)
    assert vote_unit(first, make_pair(1)).key != vote_unit(second, make_pair(1)).key


# Many pairs


MATRIX = st.lists(st.tuples(*[st.sampled_from([YES, NO, NONE, "?"])] * 3), max_size=12)


@settings(deadline=None)
@given(MATRIX, st.sampled_from([1, 2, 3]), st.sampled_from([0.0, 0.5]), st.randoms())
def test_everything_that_goes_in_comes_out_in_one_order(rows, quorum, share, rng):
    questions = judges(3)
    pairs = [make_pair(n) for n in range(len(rows))]
    answers = {}
    for pair, votes in zip(pairs, rows, strict=True):
        answers |= answers_for(questions, pair, votes)
    found = voted(pairs, questions, rules(quorum, share), answers)
    assert len(found.samples) + len(found.rejects) + found.pending == len(pairs)
    assert len(found.verdicts) == len(found.samples) + len(found.rejects)
    for listed in (found.verdicts, found.samples, found.rejects, found.votes):
        assert [row.pair for row in listed] == sorted(row.pair for row in listed)
    needed = votes_needed(pairs, questions, rules(quorum, share), answers)
    pending = {unit.item["question"] for units in needed for unit in units}
    assert len(pending) == found.pending, "what is pending is asked for, and nothing else"
    assert {pair.question for pair in pairs} - {p.question for p in (*found.samples,)} >= pending
    shuffled, mixed = pairs[:], list(answers.items())
    rng.shuffle(shuffled)
    rng.shuffle(mixed)
    assert voted(shuffled, questions, rules(quorum, share), dict(mixed)) == found


def test_no_pairs_are_no_work():
    questions = judges(3)
    assert votes_needed([], questions, rules(), {}) == [[], [], []]
    assert voted([], questions, rules(), {}).verdicts == []


# The rule of a probability, whose figures are recorded


def probable(right, least=0.5, names=("j0", "j1", "j2"), audit=0.0):
    measure = JudgeMeasure(judges=names, right=tuple(right), pairs=100)
    return MeasuredVote(rule=ProbabilityRule(probability=least), audit_share=audit, measure=measure)


CASTS = list(itertools.product((1, 0, NONE), repeat=3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.4, 0.5, 0.9]), min_size=27, max_size=27), st.sampled_from([0.0, 1.0]))
def test_a_probability_is_decided_as_if_all_had_voted_and_nobody_is_asked_in_vain(right, audit):
    rule = probable(right, audit=audit)
    questions, pair = judges(3), make_pair(1)
    for votes in CASTS:
        asked, found = run(questions, pair, rule, votes)
        [verdict] = found.verdicts
        reached = {len(questions): {verdict.accepted}}
        for said in (2, 1, 0):  # the verdicts that the first so many votes leave possible, whatever the others vote
            ways = [cast for cast in CASTS if cast[:said] == votes[:said]]
            named = (zip(("j0", "j1", "j2"), cast, strict=True) for cast in ways)
            reached[said] = {rule.measure.probability(each) >= 0.5 for each in named}
        assert verdict.accepted == (rule.measure.probability(zip(("j0", "j1", "j2"), votes, strict=True)) >= 0.5), (
            "as if all had voted"
        )
        assert verdict.votes == min(said for said in reached if len(reached[said]) == 1)
        assert sorted(asked) == list(range(3 if audit else verdict.votes))
        assert bool(found.samples) == verdict.accepted != bool(found.rejects)


def test_a_pair_that_is_too_improbable_says_by_how_much_and_by_which_record():
    rule = probable([0.5] * 9 + [0.2] * 9 + [0.95] * 9, least=0.9)  # the last judge alone knows
    questions, pair = judges(3), make_pair(1)
    asked, found = run(questions, pair, rule, (1, 1, 0))
    assert asked == [0, 1, 2]
    [reject] = found.rejects
    assert (reject.reason, reject.detail.split(";")[0]) == (
        Reason.IMPROBABLE,
        f"probability 0.200 < 0.9 (judges as recorded in {short(rule.measure.hash)})",
    )
    assert run(questions, pair, rule, (1, 1, NONE))[1].rejects[0].reason == Reason.ABSTAINED
    assert run(questions, pair, rule, (0, 0, 1))[1].samples == [pair]


def test_a_judge_of_which_nothing_is_recorded_is_asked_in_audits_alone():
    right = [0.5, 0.1, 0.9] * 3
    pair, votes = make_pair(1), (1, 0, 0)
    assert run(judges(3), pair, probable(right, names=("j0", "j1")), votes)[0] == [0]
    assert sorted(run(judges(3), pair, probable(right, names=("j0", "j1"), audit=1.0), votes)[0]) == [0, 1, 2]
    unknown = Probable(0.5, JudgeMeasure(judges=("x",), right=(0.6, 0.1, 0.9), pairs=9), ("j0", "j1"))
    assert (unknown.fewest, unknown.sides(()), unknown.sides((MISSING,))) == (0, {True}, {True})


@given(st.integers(1, 4), st.lists(st.sampled_from([1, 0, NONE, MISSING]), max_size=4))
def test_what_a_quorum_leaves_open_is_what_every_way_to_vote_on_says(quorum, cast):
    rule = Quorum(quorum, "abcd")
    ends = {ways.count(1) >= quorum for ways in ways_on(tuple(cast), 4)}
    assert rule.sides(tuple(cast)) == ends
    answered = ways_on(tuple(cast), len(cast))
    assert rule.is_open(tuple(cast)) == all(len(rule.sides(way)) > 1 for way in answered)


def ways_on(cast, judges):
    """Every way in which votes that are missing, and those of further judges, may come out."""
    left = [(1, 0, NONE) if vote == MISSING else (vote,) for vote in cast] + [(1, 0, NONE)] * (judges - len(cast))
    return list(itertools.product(*left))
