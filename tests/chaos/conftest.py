"""The whole suite takes half an hour, and runs when asked for (`make chaos`); else a sample of it does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.galaxies import Models
from PIL import Image

from chaos.cases import Case, Universe
from chaos.table import Table
from chaos.worker import record
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.models.encoders.base import open_encoder
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.release.publish import Published, published
from taskgalaxy_ops.sources.builtin import build
from taskgalaxy_ops.taxonomy import label_text, load_seeds

ASKED = "TASKGALAXY_CHAOS"  # read before tests/conftest.py takes such variables away
WHOLE = os.environ.get(ASKED) == "1"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

_SEEDS = """
- colour~colour of things~object colour identification
- detection & localisation~object localisation
- shapes & patterns~shape recognition~shape colour identification
- scene~lighting~night scene spotting
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not WHOLE and item.get_closest_marker("chaos"):
            item.add_marker(pytest.mark.skip(reason=f"make chaos runs it ({ASKED}=1)"))


@pytest.fixture(scope="session")
def whole() -> bool:
    """Whether every case is asked for, and not a sample."""
    return WHOLE


@pytest.fixture(scope="session")
def universe(tmp_path_factory: pytest.TempPathFactory, seaweedfs: SeaweedFS, served: Models) -> Universe:
    folder = tmp_path_factory.mktemp("chaos")
    images = build("shapes", folder / "few", 3)
    seeds = folder / "seeds.yaml"
    seeds.write_text(_SEEDS, "utf-8")
    pixels: list[Image.Image] = [upright(path.read_bytes()) for path in sorted(images.rglob("*.png"))]
    texts = [label_text(node.path) for node in load_seeds(seeds)]
    record(open_encoder("conse"), pixels, texts, folder / "encoder.npz")
    return Universe(seaweedfs, served.base_url.removesuffix("/v1"), images, seeds, folder / "encoder.npz", folder)


@pytest.fixture(scope="session")
def undisturbed(universe: Universe) -> Case:
    """A run that nothing happened to."""
    case = Case(universe, "undisturbed")
    with case.worker() as worker:
        assert worker.wait() == 0, worker.said
    case.sound()
    assert not case.paid_twice()
    return case


@pytest.fixture(scope="session")
def expected(undisturbed: Case) -> Published:
    """Its release."""
    (found,) = published(undisturbed.workspace)
    assert found.samples >= 3
    return found


@pytest.fixture
def table(request: pytest.FixtureRequest, whole: bool) -> Iterator[Table]:
    """What the cases of a test came to: rows of the page, once all of them have passed."""
    table, failed = Table(), request.session.testsfailed
    yield table
    if whole and request.session.testsfailed == failed:
        table.write(PAGE)
