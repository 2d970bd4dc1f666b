"""Every odd file has its outcome, in the processes that ingest decodes in; docs/reliability.md shows them all."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from odd_files import IMAGE, odd_files, table

from taskgalaxy_ops.models.opening import register_heif
from taskgalaxy_ops.models.rendering import rendered
from taskgalaxy_ops.settings import IngestSettings
from taskgalaxy_ops.sources.checking import scan
from taskgalaxy_ops.sources.listing import SourceFile
from taskgalaxy_ops.storage.scan_staging import ScanStaging

pytest.importorskip("pi_heif", reason="the extra `heif` is not installed")

DOCS = Path(__file__).parents[3] / "docs" / "reliability.md"
BEGIN, END = "<!-- made from tests/odd_files.py: begin -->", "<!-- made from tests/odd_files.py: end -->"


def outcomes(settings: IngestSettings) -> dict[str, str]:
    """What ingest makes of each file, and of those with the same bytes as another, of the first."""
    names = {raw: name for name, (raw, _) in reversed(odd_files().items())}
    files = [SourceFile(name=name, read=partial(bytes, raw)) for raw, name in names.items()]
    with ScanStaging("mine") as staged:
        scan(files, staged, (), (), settings, lambda image, raw: None)
        assert staged.claims + staged.rejects == len(names)
        found = dict.fromkeys(staged.claimed_files(), IMAGE)
        return found | {each.file: each.reason for each in staged.file_rejects()}


def test_every_odd_file_has_its_outcome() -> None:
    expected = {name: outcome for name, (_, outcome) in odd_files().items()}
    assert sum("as usual" not in name and not name.endswith(": whole") for name in expected) >= 150
    found = outcomes(IngestSettings())
    assert len(found) > 300
    assert found == {name: expected[name] for name in found}


def test_what_passes_can_be_rendered() -> None:
    register_heif()
    for name, (raw, outcome) in odd_files().items():
        if outcome == IMAGE:
            assert rendered(raw, 64, 80, 28), name


def test_animated_files_are_rejected_where_the_settings_say_so() -> None:
    usual, strict = outcomes(IngestSettings()), outcomes(IngestSettings(animated="reject"))
    changed = {name: outcome for name, outcome in strict.items() if outcome != usual[name]}
    assert set(changed.values()) == {"animated"}
    assert {f"{kind}: animated" for kind in ("gif", "png", "webp", "avif")} | {"gif: a thousand frames"} <= set(changed)
    assert all("animated" in name or "frames" in name for name in changed)


def test_the_table_in_the_docs_is_of_these_files() -> None:
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    written, after = rest.split(END)
    if os.environ.get("UPDATE_DOCS"):
        DOCS.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")
        return
    assert written == f"\n{table()}\n", "docs/reliability.md: run `UPDATE_DOCS=1 pytest tests/unit/sources -k docs`"
