"""What a release takes of each task type, against definitions, and from rows to rejects with their reasons."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgalaxy_ops.models.encoders.base import Vectors, normalise
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.release import balance
from taskgalaxy_ops.release.repeats import leave_out_repeated
from taskgalaxy_ops.release.sqlite_staging import database
from taskgalaxy_ops.settings import BalanceSettings, RepeatSettings

PATHS = [f"{branch}~{number}" for branch in "abc" for number in range({"a": 16, "b": 5, "c": 1}[branch])]


def rows_of(samples: Iterable[tuple[str, str, str]]) -> sqlite3.Connection:
    """Accepted samples: image, task type, question."""
    rows = database()
    rows.executemany(
        "INSERT INTO pairs (pair, image, task_type, question) VALUES (?, ?, ?, ?)",
        ((f"{number:04d}", *sample) for number, sample in enumerate(samples)),
    )
    return rows


def rejects(rows: sqlite3.Connection) -> Counter[str]:
    return Counter(dict(rows.execute("SELECT reason, count(*) FROM pairs WHERE reason NOT NULL GROUP BY 1")))


def kept(rows: sqlite3.Connection) -> Counter[str]:
    return Counter(dict(rows.execute("SELECT task_type, count(*) FROM pairs WHERE reason IS NULL GROUP BY 1")))


@given(
    there=st.dictionaries(st.sampled_from(PATHS), st.integers(1, 400), min_size=1),
    samples=st.integers(1, 3000),
    temperature=st.sampled_from([1, 1.5, 2, 10]),
)
def test_shares_add_up_exceed_nothing_and_follow_the_temperature(
    there: dict[str, int], samples: int, temperature: float
) -> None:
    found = balance.shares(there, samples, temperature)
    assert found.keys() == there.keys()
    assert sum(found.values()) == min(samples, sum(there.values()))
    assert all(0 <= found[path] <= there[path] for path in there)
    open_ = [path for path in there if found[path] < there[path]]
    for path in open_:  # those that are cut share in proportion, but for a sample that rounding gives or takes
        per_weight = found[path] / there[path] ** (1 / temperature)
        others = [(found[other] + 1) / there[other] ** (1 / temperature) for other in open_]
        assert per_weight <= min(others) + 1e-9 + 1 / there[path] ** (1 / temperature)


def test_a_larger_share_has_the_task_types_of_a_smaller_and_every_branch_has_its_part() -> None:
    before: set[str] = set()
    for share, expected in ((1 / 8, 4), (1 / 4, 7), (1 / 2, 12), (1, 22)):
        found = set(balance.drawn_types(PATHS, share))
        assert before <= found
        assert len(found) == expected, "of 16, 5 and 1, each rounded up"
        before = found
    assert before == set(PATHS)
    assert balance.drawn_types(PATHS[:9], 1 / 3) == balance.drawn_types(PATHS[8::-1], 1 / 3)


def test_a_balance_leaves_out_with_its_reasons() -> None:
    rows = rows_of((f"i{number}", path, "?") for path in PATHS for number in range(1 if path == "b~0" else 30))
    balance.balance(rows, BalanceSettings(floor=2, task_types=0.5, samples=100))
    found = kept(rows)
    assert sum(found.values()) == 100
    assert set(found) == set(balance.drawn_types([path for path in PATHS if path != "b~0"], 0.5))
    assert max(found.values()) - min(found.values()) <= 1
    counted = rejects(rows)
    assert counted[Reason.UNDER_FLOOR] == 1
    assert counted.keys() == {Reason.UNDER_FLOOR, Reason.OTHER_TASK_TYPES, Reason.OVER_CAP}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"plain": 3, "yes_no": 1}, {"plain": 60, "yes_no": 20}),
        ({"plain": 1, "yes_no": 1}, {"plain": 20, "yes_no": 20}),
        ({"plain": 1}, {"plain": 90}),
        ({"plain": 1, "counting": 1}, {}),
    ],
)
def test_forms_keep_their_shares(weights: dict[str, float], expected: dict[str, int]) -> None:
    rows = rows_of((f"i{number}", "a~0", "?") for number in range(110))
    rows.execute("UPDATE pairs SET variant = iif(rowid % 11 < 9, 'plain', 'yes_no')")
    balance.balance(rows, BalanceSettings.model_construct(forms=weights, floor=1, task_types=1, samples=None))
    found = dict(rows.execute("SELECT variant, count(*) FROM pairs WHERE reason IS NULL GROUP BY 1"))
    assert found == expected
    assert rejects(rows).keys() <= {Reason.OTHER_VARIANT}


def test_images_whose_licence_is_not_allowed_go_with_all_their_samples() -> None:
    rows = rows_of((image, "a~0", "?") for image in ("one", "two", "three", "none"))
    claims = {
        "one": '[{"licence":"CC BY 4.0"}]',
        "two": '[{"licence":"CC BY 4.0"},{"licence":"all rights reserved"}]',
        "three": '[{"licence":"my licence"}]',
        "none": "[{}]",
    }
    rows.executemany("INSERT INTO images (image, claims, wanted) VALUES (?, ?, 1)", claims.items())
    rows.execute("INSERT INTO pairs (pair, image, task_type) VALUES ('several', 'one', 'a~0')")
    rows.execute("INSERT INTO further VALUES ('several', 1, 'none')")
    balance.leave_out_unlicensed(rows, ("cc-by-4.0", "my licence"))
    told = dict(
        rows.execute("SELECT coalesce(nullif(pair, 'several'), 'several'), detail FROM pairs WHERE reason NOT NULL")
    )
    assert told == {"0001": "all rights reserved", "0003": "unknown", "several": "unknown"}
    assert [image for (image,) in rows.execute("SELECT image FROM images WHERE wanted ORDER BY image")] == [
        "one",
        "three",
    ]
    assert rejects(rows) == {Reason.OTHER_LICENCE: 3}


def encoder(texts: Sequence[str]) -> Vectors:
    """Questions about one thing lie together."""
    return normalise(
        np.array([[len(text) / 100, *(float(word in text) for word in ("red", "many"))] for text in texts])
    )


def test_questions_with_the_same_words_are_capped_within_a_task_type() -> None:
    asked = ["How many?", "how  many", "HOW MANY?", "What is red?"]
    rows = rows_of((f"i{number}", path, words) for path in ("a~0", "a~1") for number, words in enumerate(asked))
    leave_out_repeated(rows, RepeatSettings(same=2), None)
    assert kept(rows) == {"a~0": 3, "a~1": 3}
    assert rejects(rows) == {Reason.REPEATED_QUESTION: 2}
    for task_type, detail in rows.execute("SELECT task_type, detail FROM pairs WHERE reason NOT NULL"):
        twin = detail.removeprefix("as ").removesuffix(" asks")
        (found,) = rows.execute("SELECT task_type FROM pairs WHERE pair = ? AND reason IS NULL", (twin,)).fetchone()
        assert found == task_type


def test_questions_that_mean_the_same_are_capped_and_name_the_first() -> None:
    asked = ["Which is red?", "What is red?", "Is one of them red?", "How many are there?", "How many?"]
    rows = rows_of((f"i{number}", "a~0", words) for number, words in enumerate(asked))
    leave_out_repeated(rows, RepeatSettings(alike=1), encoder)
    left = [question for (question,) in rows.execute("SELECT question FROM pairs WHERE reason IS NULL")]
    assert sorted("red" in question for question in left) == [False, True]
    for question, detail in rows.execute("SELECT question, detail FROM pairs WHERE reason NOT NULL").fetchall():
        (first,) = rows.execute("SELECT question FROM pairs WHERE 'as ' || pair || ' asks' = ?", (detail,)).fetchone()
        assert first in left
        assert ("red" in first) == ("red" in question)


@pytest.mark.parametrize("chosen", [RepeatSettings(), RepeatSettings(same=9), RepeatSettings(alike=9)], ids=str)
def test_what_is_not_over_stays(chosen: RepeatSettings) -> None:
    rows = rows_of((f"i{number}", "a~0", "How many?") for number in range(5))
    leave_out_repeated(rows, chosen, encoder)
    assert rejects(rows) == {}
