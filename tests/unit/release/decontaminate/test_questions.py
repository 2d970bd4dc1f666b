"""Which questions are one, by their words and by their embeddings."""

from collections.abc import Sequence

import numpy as np
import pytest

from taskgalaxy_ops.release.decontaminate.questions import (
    SAME_WORDS,
    SENTENCE,
    SHARED_RUNS,
    BenchmarkQuestion,
    QuestionIndex,
    QuestionThresholds,
    question_print,
)

LIMITS = QuestionThresholds(containment=0.6, cosine=0.9, terms=0.5)
LOBSTER = "Which country exported the most frozen lobster to Norway between 2003 and 2011 according to the chart?"


def index(items: dict[str, str], vectors: dict[str, list[float]] | None = None) -> QuestionIndex:
    rows = [BenchmarkQuestion(item, *question_print(text)) for item, text in items.items()]
    known = {question_print(text).ordered: np.array(each, np.float32) for text, each in (vectors or {}).items()}
    return QuestionIndex(rows, known)


def found(made: QuestionIndex, texts: Sequence[str], encode=None, limits=LIMITS) -> list[tuple[int, str, str]]:
    prints = [question_print(text) for text in texts]
    return [(number, item, kind) for number, item, kind, _ in made.search(texts, prints, encode, limits)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (LOBSTER, SAME_WORDS),
        (LOBSTER.upper().replace("?", " ?!").replace("2003", "２００３"), SAME_WORDS),
        (
            "According to the chart, which country exported the most frozen lobster to Norway between 2003 and 2011?",
            SAME_WORDS,
        ),
        (f"Look closely. {LOBSTER} Answer with a single word: A. Chile B. Canada", SHARED_RUNS),
        (LOBSTER.replace("country", "state"), SHARED_RUNS),
        (LOBSTER.replace("lobster", "herring"), None),
        (LOBSTER.replace("2011", "2012"), None),
        ("Which country exported the most?", None),
    ],
)
def test_a_question_is_found_by_its_words(text: str, kind: str | None) -> None:
    assert found(index({"q7": LOBSTER}), [text]) == ([(0, "q7", kind)] if kind else [])


def test_short_questions_and_phrases_of_a_benchmark_are_no_leaks() -> None:
    close = "Please answer the question with yes or no and nothing else:"
    items = {f"p{number}": f"{close} is there a {thing}?" for number, thing in enumerate("abcdefghijklmnop")}
    items |= {f"r{number}": "Which of the options below fits the picture best?" for number in range(20)}
    made = index({**items, "short": "What is shown here?"})
    assert found(made, ["What is shown here?", items["r0"], f"{close} has it a tail?"]) == []
    assert found(made, [items["p3"]]) == [(0, "p3", SAME_WORDS)]


def test_letters_of_scripts_without_blanks_count_as_words() -> None:
    asked = "图中左边的红色汽车旁边站着几个人？"
    assert found(index({"cn": asked}), [f"请看图。{asked}"]) == [(0, "cn", SHARED_RUNS)]


def test_a_paraphrase_needs_a_near_embedding_and_words_in_common() -> None:
    said = "How many red lorries wait beside the old harbour crane in this picture?"
    near, far = [1.0, 0.0], [0.0, 1.0]
    texts = {
        "What is the number of red lorries that wait by the old crane of the harbour?": near,
        "How many red lorries wait beside the old windmill, and how many barges are moored next to it?": far,
        "How many green apples lie below the tall garden ladder in this picture?": near,
    }
    encoded: list[str] = []

    def encode(asked: Sequence[str]) -> np.ndarray:
        encoded.extend(asked)
        return np.array([texts[each] for each in asked], np.float32)

    made = index({"q": said}, {said: near})
    assert found(made, list(texts), encode) == [(0, "q", SENTENCE)]
    assert encoded == list(texts)[:2], "what shares too few words is not encoded"
    alone = QuestionThresholds(0.6, 0.9, 0)
    assert found(made, list(texts), encode, alone) == [(0, "q", SENTENCE), (2, "q", SENTENCE)]
    assert found(made, list(texts), None) == []


def test_a_finding_does_not_depend_on_the_order_of_the_items() -> None:
    items = {"b": LOBSTER, "a": LOBSTER, "c": f"{LOBSTER} A. Chile"}
    assert (
        found(index(items), [LOBSTER])
        == found(index(dict(reversed(items.items()))), [LOBSTER])
        == [(0, "a", SAME_WORDS)]
    )
