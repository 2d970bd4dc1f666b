"""The numbers of a version, and searching it by words and by meaning."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fakes import MemoryStore
from tiny import TYPES, TinyEncoder, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops.taxonomy import TaxonomyVersion, add_types, aliases, label_text
from taskgalaxy_ops.taxonomy.search import search
from taskgalaxy_ops.taxonomy.stats import taxonomy_stats
from taskgalaxy_ops.taxonomy.store import TaxonomyStore


def version_of(*paths: str) -> TaxonomyVersion:
    return TaxonomyVersion(0, None, tuple(add_types([], paths)))


def test_the_numbers_of_a_version():
    found = taxonomy_stats(aliases.rename(version_of("a~b~c", "a~b~d", "a~e", "f"), "a~e", "x").retire("a~b~d"))
    assert (found.task_types, found.nodes, found.retired, found.renamed) == (3, 5, 2, 1)
    assert {
        level: (each.nodes, each.task_types, each.children, each.most_children) for level, each in found.levels.items()
    } == {
        1: (2, 1, 2.0, 2),
        2: (2, 1, 1.0, 1),
        3: (1, 1, None, 0),
    }
    assert found.depth == 2.0
    assert found.branches == {"a": 2, "f": 1}
    assert found.origins == {"hand": 3}


@pytest.mark.parametrize(
    ("sizes", "gini", "evenness"),
    [((2, 2, 2), 0.0, 1.0), ((3, 1), 0.25, -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))), ((4,), 0.0, None)],
)
def test_the_balance_of_branches(sizes, gini, evenness):
    found = taxonomy_stats(version_of(*(f"b{n}~t{k}" for n, size in enumerate(sizes) for k in range(size))))
    assert found.gini == pytest.approx(gini)
    assert found.evenness == (None if evenness is None else pytest.approx(evenness))


def test_an_empty_version_has_no_balance():
    found = taxonomy_stats(version_of("a~b").retire("a"))
    assert (found.task_types, found.depth, found.gini, found.evenness) == (0, None, None, None)


@pytest.fixture
def taxonomy_store(tmp_path):
    tiny_seeds(tmp_path / "seeds.yaml")
    settings = tiny_settings(tmp_path, taxonomy={"seeds": str(tmp_path / "seeds.yaml")})
    store = TaxonomyStore(tiny_workspace(settings, MemoryStore()))
    store.ensure_seeds()
    return store


def test_by_words(taxonomy_store):
    found = search(taxonomy_store, "OCR  a", 0)
    assert [node.path for node in found.by_words] == ["ocr~ocr a"]
    assert found.by_meaning == ()


def test_by_meaning_exactly_and_by_the_present_path(taxonomy_store):
    base = taxonomy_store.version()
    taxonomy_store.publish(0, aliases.rename(base, TYPES[0], "reading").nodes, [], "hand")
    found = search(taxonomy_store, label_text(TYPES[0]), 4)
    assert found.by_meaning[0] == ("ocr~reading", 1.0), "it is encoded by the path as it is asked"
    texts = TinyEncoder().encode_texts([label_text(path) for path in (TYPES[0], *TYPES[1:])]).astype(np.float64)
    cosines = dict(zip(("ocr~reading", *TYPES[1:]), texts @ texts[0], strict=True))
    best = sorted(cosines, key=lambda path: (-round(cosines[path], 6), path))[:4]
    assert [path for path, _ in found.by_meaning] == best
    assert [similarity for _, similarity in found.by_meaning] == pytest.approx(
        [cosines[path] for path in best], abs=1e-6
    )
    older = search(taxonomy_store, label_text(TYPES[0]), 1, version=0)
    assert older.by_meaning == [(TYPES[0], 1.0)]
