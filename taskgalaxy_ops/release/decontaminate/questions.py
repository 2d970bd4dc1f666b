"""Fingerprints of questions, and the search for those of a benchmark among a release's.

A fingerprint holds hashes alone: of the words in their order, of the words in any order, of each run of eight words,
and of the words that carry meaning. Runs of words that more than ten of a benchmark's questions share are its phrases
(*answer with yes or no*) and are not compared, as Brown et al. (2020, appendix C) leave out what occurs in more than
ten documents.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import log1p
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.settings import DecontaminateSettings

GRAM = 8  # words of a run; shorter questions are too common to be compared by their words alone
PHRASE = 10  # questions of a benchmark, beyond which what they share is a phrase of it

_UNKNOWN = 0.3  # weight of a word that no question of the benchmark has; of one that all have, 0.7
_AT_ONCE = 1 << 12  # questions that are compared with all items' at once
_WIDE = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"  # scripts without blanks between words: each letter counts as a word
_WORD = re.compile(rf"[{_WIDE}]|[^\W_{_WIDE}]+")
# What a question can lack or gain and ask the same: function words, and words of asking and of pictures.
_EMPTY = frozenset({
    "a", "an", "the", "this", "that", "these", "those", "it", "its", "there", "here", "of", "in", "on", "at", "to",
    "from", "for", "with", "by", "as", "and", "or", "is", "are", "was", "were", "be", "been", "being", "am", "do",
    "does", "did", "can", "could", "would", "will", "shall", "should", "may", "might", "must", "have", "has", "had",
    "you", "your", "we", "our", "i", "me", "my", "us", "please", "tell", "say", "state", "give", "name", "answer",
    "question", "following", "according", "based", "look", "looking", "see", "seen", "show", "shown", "shows",
    "showing", "depict", "depicted", "depicts", "display", "displayed", "displays", "visible", "appear", "appears",
    "image", "images", "picture", "pictures", "photo", "photos", "photograph", "photographs", "figure", "provided",
    "given", "above", "below", "using", "use", "which", "what", "who", "whom", "whose", "where", "when", "why", "how",
    "s", "t",
})  # fmt: skip


class QuestionPrint(NamedTuple):
    """What is kept of a question's text. The hashes have 64 bits, as signed numbers."""

    ordered: int  # of its words
    bag: int  # of its words, sorted
    grams: tuple[int, ...]  # of each run of GRAM words; (): it has fewer words
    terms: tuple[int, ...]  # of the stems of the words that carry meaning; odd ones of numbers; sorted


def words_of(text: str) -> list[str]:
    """A text's words, without differences of compatibility forms, case and marks."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def question_print(text: str) -> QuestionPrint:
    """The fingerprint of a question."""
    words = words_of(text)
    grams = {_hashed(" ".join(words[at : at + GRAM])) for at in range(len(words) - GRAM + 1)}
    terms = {_term(word) for word in words if word not in _EMPTY}
    return QuestionPrint(
        _hashed(" ".join(words)), _hashed(" ".join(sorted(words))), tuple(sorted(grams)), tuple(sorted(terms))
    )


def _term(word: str) -> int:
    """The hash of a word's stem. Its last bit says whether it is a number."""
    number = any(map(str.isdigit, word))
    return _hashed(word if number else _stem(word)) & ~1 | number


def _numbers(terms: Iterable[int]) -> frozenset[int]:
    return frozenset(term for term in terms if term & 1)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


@lru_cache(1 << 16)
def _stem(word: str) -> str:
    return str(_stemmer().stemWord(word))


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


@dataclass(frozen=True, slots=True)
class BenchmarkQuestion:
    """A question of a benchmark, as the store keeps it. A question with options has two: one is without them."""

    item: str  # its id within the benchmark
    ordered: int  # this and the rest as QuestionPrint
    bag: int
    grams: tuple[int, ...]
    terms: tuple[int, ...]


class Found(NamedTuple):
    """A question that is, or resembles, one of a benchmark."""

    question: int  # number of the release's question
    item: str
    kind: str
    score: float  # 1: the same


@dataclass(frozen=True, slots=True)
class QuestionThresholds:
    """From which on two questions are one."""

    containment: float  # share of the runs of words of the shorter one
    cosine: float  # of their embeddings, and then
    terms: float  # of the words that carry meaning in either, rare ones counting more, the share that both have

    @classmethod
    def of(cls, settings: DecontaminateSettings) -> QuestionThresholds:
        """Those that the settings choose."""
        return cls(settings.question_runs, settings.question_cosine, settings.question_terms)


SAME_WORDS = "the same words"
SHARED_RUNS = "runs of eight words"
SENTENCE = "meaning of the sentence"

Encode = Callable[[Sequence[str]], NDArray[np.float32]]  # texts to unit vectors (n, d)


def comparable(rows: Iterable[BenchmarkQuestion]) -> list[BenchmarkQuestion]:
    """The different questions that are long enough and no phrases, in order of item.

    Of a question that is asked of several pictures, the first item by name stands for all.
    """
    asked: dict[int, list[BenchmarkQuestion]] = defaultdict(list)
    for row in rows:
        if row.grams:
            asked[row.ordered].append(row)
    first = [min(same, key=lambda row: row.item) for same in asked.values() if len(same) <= PHRASE]
    return sorted(first, key=lambda row: (row.item, row.ordered))


class QuestionIndex:
    """The questions of one benchmark, ready to be compared.

    rows: its questions. vectors: by ``ordered``, embeddings (d,) of length 1; {}: they are not compared by these.
    """

    def __init__(self, rows: Iterable[BenchmarkQuestion], vectors: Mapping[int, NDArray[np.float32]]) -> None:
        self._rows = comparable(rows)
        shared = Counter(gram for row in self._rows for gram in row.grams)
        self._phrases = frozenset(gram for gram, times in shared.items() if times > PHRASE)
        self._sizes = [len(self._own(row.grams)) for row in self._rows]
        self._by_gram = _inverted(self._own(row.grams) for row in self._rows)
        self._by_bag = {row.bag: number for number, row in reversed(list(enumerate(self._rows)))}
        embedded = [number for number, row in enumerate(self._rows) if row.ordered in vectors]
        self._embedded = np.array(embedded, int)
        self._place = {number: place for place, number in enumerate(embedded)}
        self._vectors = np.stack([vectors[self._rows[number].ordered] for number in embedded]) if embedded else None
        self._numbers = [_numbers(row.terms) for row in self._rows]
        self._terms = [
            frozenset(row.terms) if number in self._place else frozenset() for number, row in enumerate(self._rows)
        ]
        self._by_term = _inverted(self._terms)
        self._weights = [sum(map(self._weight, terms)) for terms in self._terms]

    def __len__(self) -> int:
        """How many different questions are compared; shorter ones and phrases are not."""
        return len(self._rows)

    def _own(self, grams: Iterable[int]) -> list[int]:
        return [gram for gram in grams if gram not in self._phrases]

    def search(
        self, texts: Sequence[str], prints: Sequence[QuestionPrint], encode: Encode | None, limits: QuestionThresholds
    ) -> Iterator[Found]:
        """For each question that is one of the benchmark's, the item that it resembles most, in order of question.

        encode: None: only their words are compared. It is called for questions alone that have enough words in common
        with one of the benchmark's, and not found by their words.
        """
        found: dict[int, Found] = {}
        for number, each in enumerate(prints):
            if not each.grams:
                continue
            if each.bag in self._by_bag:
                found[number] = Found(number, self._rows[self._by_bag[each.bag]].item, SAME_WORDS, 1.0)
            elif runs := self._runs(each, limits.containment):
                found[number] = Found(number, self._rows[runs[1]].item, SHARED_RUNS, runs[0])
        if encode is not None and self._vectors is not None:
            rest = [number for number, each in enumerate(prints) if each.grams and number not in found]
            pairs = self._pairs(prints, rest, limits.terms) if limits.terms else dict.fromkeys(rest)
            for start in range(0, len(pairs), _AT_ONCE):
                part = list(pairs)[start : start + _AT_ONCE]
                vectors = encode([texts[number] for number in part])
                for number, cosines in zip(part, vectors @ self._vectors.T, strict=True):
                    rows = pairs[number]
                    places = np.arange(len(cosines)) if rows is None else np.array([self._place[row] for row in rows])
                    best = places[np.argmax(cosines[places])]
                    if cosines[best] >= limits.cosine:
                        item = self._rows[self._embedded[best]].item
                        found[number] = Found(number, item, SENTENCE, round(min(1.0, float(cosines[best])), 3))
        yield from (found[number] for number in sorted(found))

    def _runs(self, each: QuestionPrint, least: float) -> tuple[float, int] | None:
        """The greatest containment, and of which row; of equal ones the first row."""
        own, numbers = self._own(each.grams), _numbers(each.terms)
        hits = Counter(row for gram in own for row in self._by_gram.get(gram, ()))
        rows = [row for row in hits if numbers <= self._numbers[row] or self._numbers[row] <= numbers]
        share, row = max(((hits[row] / min(len(own), self._sizes[row]), -row) for row in rows), default=(0.0, 0))
        return (round(share, 3), -row) if share and share >= least else None

    def _weight(self, term: int) -> float:
        """How much a word says: more, the fewer of the benchmark's questions have it, and little if none has.

        A word that is nowhere in the benchmark may well be another for one that is; one that is in other questions of
        it makes this one another question.
        """
        times = len(self._by_term.get(term, ()))
        return log1p(len(self._rows) / times) if times else _UNKNOWN

    def _pairs(
        self, prints: Sequence[QuestionPrint], numbers: Iterable[int], least: float
    ) -> dict[int, list[int] | None]:
        """By question, the rows with which it has this share of words in common, by weight, and all numbers.

        Rarest first, a question's words are looked up until those that are left weigh too little to be the share alone
        (prefix filtering: Chaudhuri, Ganti and Kaushik, 2006).
        """
        found: dict[int, list[int] | None] = {}
        for number in numbers:
            own = {term: self._weight(term) for term in prints[number].terms}
            said = _numbers(own)
            left, candidates = sum(own.values()), set[int]()
            enough = least * left
            for term in sorted(own, key=lambda term: (-own[term], term)):
                if left < enough:
                    break
                candidates.update(self._by_term.get(term, ()))
                left -= own[term]
            same = (row for row in sorted(candidates) if self._numbers[row] == said)
            if rows := [row for row in same if self._common(own, row) >= least]:
                found[number] = rows
        return found

    def _common(self, own: Mapping[int, float], row: int) -> float:
        """The weight of the words that a question shares with a row, of those that either has."""
        shared = sum(weight for term, weight in own.items() if term in self._terms[row])
        return shared / (sum(own.values()) + self._weights[row] - shared)


def _inverted(sets: Iterable[Iterable[int]]) -> dict[int, list[int]]:
    """By element, the numbers of the sets that have it."""
    found: dict[int, list[int]] = defaultdict(list)
    for number, elements in enumerate(sets):
        for element in elements:
            found[element].append(number)
    return dict(found)
