"""The journal: the first accepted answer stands, a forget lets it be asked again, and a reply counts once."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from fakes import MemoryStore
from hypothesis import given
from hypothesis import strategies as st

from taskgalaxy_ops.errors import StoreError
from taskgalaxy_ops.records import Answer, Reply
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage.journal import PART_REPLIES, Journal
from taskgalaxy_ops.storage.log import Log

YES, NO = Answer({"fits": True}), Answer({"fits": False})
REFUSED = Answer(terminal="refused", detail="no")


def _reply(name: str, answers: dict[str, Answer], seen: int = 0) -> Reply:
    return Reply(
        reply=name,
        stage="filter",
        model="teacher",
        units=tuple(answers),
        answers=answers,
        raw={"text": "…\ud83d"},
        usage={"prompt_tokens": 3},
        cost=5,
        list_cost=5,
        ceiling=9,
        block="b",
        attempts=1,
        seen=seen,
        at=1.5,
        seconds=0.25,
    )


def _add(journal: Journal, reply: Reply) -> None:
    journal.add(reply)
    journal.flush()


def test_a_reply_comes_back_as_it_was_written(folder_store: Store) -> None:
    journal = Journal(folder_store, "h")
    _add(journal, _reply("r", {"u": YES, "v": REFUSED}))
    again = Journal(folder_store, "h")
    assert again.answers == {"u": YES, "v": REFUSED}
    (reply,) = again.replies()
    assert reply["raw"] == {"text": "…\ud83d"}
    assert reply["units"] == ["u", "v"]
    assert (reply["cost"], reply["ceiling"], reply["block"], reply["seconds"]) == (5, 9, "b", 0.25)
    assert again.seen == 1


def test_a_reply_is_no_answer_before_it_is_written(folder_store: Store) -> None:
    journal = Journal(folder_store, "h")
    journal.add(_reply("r", {"u": YES}))
    assert journal.answers == {}
    journal.flush()
    assert journal.answers == {"u": YES}


def test_replies_are_written_in_parts(folder_store: Store) -> None:
    journal = Journal(folder_store, "h")
    for n in range(PART_REPLIES):
        assert journal.due() is False or n > 0
        journal.add(_reply(f"r{n}", {f"u{n}": YES}))
    assert journal.due()
    journal.add(_reply("one more", {"u": YES}))
    journal.flush()
    assert not journal.due()
    assert [len(entry.body["replies"]) for entry in Log(folder_store, keys.journal("h")).read()] == [PART_REPLIES, 1]


def test_who_adds_does_not_wait_for_the_store() -> None:
    store = MemoryStore()
    journal = Journal(store, "h")
    journal.add(_reply("r1", {"u": YES}))

    def add_meanwhile(operation: str, key: str) -> None:
        if operation == "put":
            adder = threading.Thread(target=journal.add, args=(_reply("r2", {"v": NO}),), daemon=True)
            adder.start()
            adder.join(30)
            assert not adder.is_alive()

    store.before = add_meanwhile
    journal.flush()
    store.before = lambda operation, key: None
    assert journal.answers == {"u": YES}
    journal.flush()
    assert journal.answers == Journal(store, "h").answers == {"u": YES, "v": NO}


def test_a_flush_of_many_parts_looks_for_a_compaction_once() -> None:
    store = MemoryStore()
    journal = Journal(store, "h")
    for n in range(3 * PART_REPLIES):
        journal.add(_reply(f"r{n}", {f"u{n}": YES}))
    asked = []
    store.before = lambda operation, key: asked.append(operation)
    journal.flush()
    assert asked == ["put", "put", "put", "list"]


def test_the_first_accepted_answer_stands(folder_store: Store) -> None:
    journal = Journal(folder_store, "h")
    _add(journal, _reply("r1", {"u": YES}))
    _add(journal, _reply("r2", {"u": NO}))
    _add(journal, _reply("r3", {"u": REFUSED}))
    assert journal.answers == Journal(folder_store, "h").answers == {"u": YES}


def test_an_answer_replaces_a_terminal_reply_and_never_the_reverse(folder_store: Store) -> None:
    journal = Journal(folder_store, "h")
    _add(journal, _reply("r1", {"u": REFUSED}))
    _add(journal, _reply("r2", {"u": replace(REFUSED, detail="other")}))
    assert journal.answers == {"u": REFUSED}
    _add(journal, _reply("r3", {"u": NO}))
    _add(journal, _reply("r4", {"u": REFUSED}))
    assert journal.answers == Journal(folder_store, "h").answers == {"u": NO}


def test_a_correction_replaces_what_came_from_the_reply_that_it_names_and_nothing_else(folder_store: Store) -> None:
    journal = Journal(folder_store, "h")
    _add(journal, _reply("r1", {"u": YES, "v": YES}))
    _add(journal, _reply("r2", {"w": YES}))
    corrected = replace(_reply("c", {"u": NO, "w": NO, "x": NO}), note={"corrects": "r1"})
    _add(journal, corrected)
    _add(journal, replace(_reply("c2", {"u": REFUSED}), note={"corrects": "r1"}))  # another process had read it, too
    assert journal.answers == Journal(folder_store, "h").answers == {"u": NO, "v": YES, "w": YES}
    journal.forget(["u"], "f")
    _add(journal, replace(corrected, reply="c3", seen=journal.seen))
    assert journal.answers == Journal(folder_store, "h").answers == {"v": YES, "w": YES}, "nothing to correct"


def test_an_answer_asked_for_before_a_forget_does_not_count_after_it(folder_store: Store) -> None:
    journal = Journal(folder_store, "h")
    _add(journal, _reply("r1", {"u": YES, "v": YES}))
    asked = journal.seen
    journal.forget(["u"], "f")
    assert journal.answers == {"v": YES}
    assert journal.forgets == 1
    _add(journal, _reply("late", {"u": NO}, seen=asked))
    assert journal.answers == {"v": YES}
    _add(journal, _reply("anew", {"u": NO}, seen=journal.seen))
    assert journal.answers == Journal(folder_store, "h").answers == {"u": NO, "v": YES}
    assert len(list(journal.replies())) == 3


def test_two_writers_agree_on_whose_answer_stands(folder_store: Store) -> None:
    one, two = Journal(folder_store, "h"), Journal(folder_store, "h")
    one.add(_reply("r1", {"u": YES}))
    two.add(_reply("r2", {"u": NO, "v": NO}))
    two.flush()
    one.flush()
    two.refresh()
    assert one.answers == two.answers == {"u": NO, "v": NO}


@pytest.mark.parametrize("written", [True, False])
def test_a_part_whose_writing_failed_is_written_again_and_counts_once(written: bool) -> None:
    store = MemoryStore()
    journal = Journal(store, "h")

    def fail(operation: str, key: str) -> None:
        if operation == "put":
            raise StoreError("out of reach")

    journal.add(_reply("r", {"u": YES}))
    store.before, store.after = (store.before, fail) if written else (fail, store.after)
    with pytest.raises(StoreError):
        journal.flush()
    store.before = store.after = lambda operation, key: None
    assert journal.answers == {}
    journal.flush()
    journal.flush()
    for reader in (journal, Journal(store, "h")):
        assert reader.answers == {"u": YES}
        assert [reply["reply"] for reply in reader.replies()] == ["r"]


_IMAGE_OF = {"u": "A", "v": "A", "w": "B"}
_ANSWERS = st.sampled_from(["uv", "w"]).flatmap(
    lambda units: st.dictionaries(st.sampled_from(units), st.sampled_from([YES, NO, REFUSED]), min_size=1)
)
_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("reply"), st.integers(0, 1), _ANSWERS, st.integers(0, 3)),
        st.tuples(st.just("again"), st.integers(0, 1), st.integers(0, 20), st.none()),
        st.tuples(st.just("correct"), st.integers(0, 1), st.integers(0, 20), st.none()),
        st.tuples(st.just("forget"), st.integers(0, 1), st.sets(st.sampled_from("uvw"), min_size=1), st.none()),
        st.tuples(st.just("erase"), st.integers(0, 1), st.sampled_from("AB"), st.none()),
        st.tuples(st.just("refresh"), st.integers(0, 1), st.none(), st.none()),
        st.tuples(st.just("compact"), st.integers(0, 1), st.none(), st.none()),
    ),
    max_size=30,
)


@given(events=_EVENTS)
def test_any_history_reads_as_the_rule_says(events: list[tuple[str, int, object, int | None]]) -> None:
    """Two writers against the rule, written down a second time; replies may come late and more than once."""
    store = MemoryStore()
    journals = [Journal(store, "h"), Journal(store, "h")]
    sent: list[Reply] = []
    answers: dict[str, Answer] = {}
    forgotten: dict[str, int] = {}
    erased: set[str] = set()
    given_by: dict[str, str] = {}
    number = 0

    for kind, who, what, lag in events:
        journal = journals[who]
        if kind == "refresh":
            journal.refresh()
        elif kind == "compact":
            journal.compact()
        elif kind == "erase":
            assert isinstance(what, str)
            number += what not in erased
            erased.add(what)
            journal.erase([what])
            answers = {unit: answer for unit, answer in answers.items() if _IMAGE_OF[unit] not in erased}
        elif kind == "forget":
            assert isinstance(what, set)
            journal.forget(what, f"f{number}")
            number += 1
            for unit in what:
                answers.pop(unit, None)
                forgotten[unit] = number
        else:
            if kind == "again":
                if not sent:
                    continue
                assert isinstance(what, int)
                reply = sent[what % len(sent)]
            elif kind == "correct":
                if not sent:
                    continue
                assert isinstance(what, int)
                reply = sent[what % len(sent)]
                anew = dict.fromkeys(reply.answers, Answer({"fits": len(sent)}))
                reply = replace(reply, reply=f"r{len(sent)}", answers=anew, note={"corrects": reply.reply})
                sent.append(reply)
            else:
                assert isinstance(what, dict)
                image = _IMAGE_OF[next(iter(what))]
                reply = replace(_reply(f"r{len(sent)}", what, seen=max(0, number - (lag or 0))), image=image)
                sent.append(reply)
            _add(journal, reply)
            number += 1
            for unit, answer in reply.answers.items():
                stands = unit not in answers or (answers[unit].terminal and not answer.terminal)
                if "corrects" in reply.note:
                    stands = unit in answers and given_by[unit] == reply.note["corrects"]
                if stands and reply.seen >= forgotten.get(unit, 0) and reply.image not in erased:
                    answers[unit] = answer
                    given_by[unit] = reply.reply
        assert journal.seen <= number

    journals[0].compact()
    for journal in (*journals, Journal(store, "h")):
        journal.refresh()
        assert journal.answers == answers
        accepted = {unit: reply["reply"] for unit, reply in journal.accepted_replies().items()}
        assert accepted == {u: given_by[u] for u in answers}
        assert all(not reply["units"] for reply in journal.replies() if reply["image"] in {None, *erased})
        assert sum(reply["cost"] for reply in journal.replies()) == 5 * len(sent)
        assert journal.seen == number
        assert [reply["reply"] for reply in journal.replies()] == [reply.reply for reply in sent]
        assert journal.forgets == sum(kind == "forget" for kind, *_ in events)


@pytest.mark.parametrize("gone", ["a", "b"])
def test_an_image_of_a_group_takes_all_with_it_that_was_said_of_the_group(folder_store: Store, gone: str) -> None:
    journal = Journal(folder_store, "h")
    _add(journal, replace(_reply("alone", {"u": YES}), image="c"))
    _add(journal, replace(_reply("group", {"v": YES}), image="a", further_images=("b",)))
    intent = {"batch": "n", "stage": "filter", "blocks": [], "requests": {"r": _request("a", further_images=["b"])}}
    journal.record({"kind": "batch", **intent})
    assert journal.answers == {"u": YES, "v": YES}

    journal.erase([gone])

    for each in (journal, Journal(folder_store, "h")):
        assert each.answers == {"u": YES}
        assert [reply["units"] for reply in each.replies()] == [["u"], []]
        assert "further_images" not in next(reply for reply in each.replies() if not reply["units"])
        assert each.batches.open["n"]["requests"] == {"r": {**_request(None), "units": []}}
        assert each.is_erased("c", gone) and not each.is_erased("c")
    late = replace(_reply("late", {"w": YES}), image="a", further_images=("b",))
    _add(journal, late)
    assert journal.answers == {"u": YES}, "an answer about it came later"


def _request(image: str | None, **further: object) -> dict[str, object]:
    return {"units": ["x"], "types": [], "image": image, **further}
