"""Makes a release of plain coloured pictures with the package's own code, for tests of fine-tuning and scoring."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image as Pillow

from taskgalaxy_ops import release
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.rendering import rendered_for
from taskgalaxy_ops.records import Claim, Image, Pair, Verdict, Vote, pair_id
from taskgalaxy_ops.settings import Model, ReleaseSettings, parse_settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.parquet import to_table
from taskgalaxy_ops.workspace import Workspace

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200), "yellow": (230, 210, 40)}
COLOUR, TONE = "colour~main colours~colour naming", "light~brightness~tone naming"


class Asked(NamedTuple):
    """What a picture is asked."""

    task_type: str
    question: str
    answer: str
    variant: str = "plain"
    reasoning: str | None = None
    voted_down: str | None = None  # another answer, that the judges refused


def plain(colour: str) -> Sequence[Asked]:
    """Two plain questions about a picture of a colour."""
    tone = "light" if colour == "yellow" else "dark"
    return Asked(COLOUR, "What colour is it?", colour), Asked(TONE, "Is it light or dark?", tone)


def workspace(folder: Path, **finetune: object) -> Workspace:
    """A workspace whose store and fine-tunes lie in a folder. ``finetune``: settings of fine-tuning."""
    model = {"base_url": "http://127.0.0.1:9/v1", "simulated": True}
    raw = {
        "store": (folder / "store").as_uri(),
        "teacher": {"name": "t", "model": "t", **model},
        "judges": [{"name": name, "model": name, **model} for name in "abc"],
        "finetune": {"folder": str(folder / "fine tune"), "poll_seconds": 0.2, "questions": 30, **finetune},
    }
    return Workspace.open(parse_settings(raw))


def released(
    store: Workspace,
    images: int = 60,
    licence: str | None = "CC0-1.0",
    test: float = 0.4,
    asked: Callable[[str], Sequence[Asked]] = plain,
    **chosen: Any,
) -> None:
    """Publish a release of ``images`` pictures in four colours; ``test``: the test share.

    asked: the questions about a picture, by its colour. chosen: further settings of the release. Pictures that it
    refers to lie in the store.
    """
    files, records, samples, voted_down = {}, {}, [], []
    for number in range(images):
        name = list(COLOURS)[number % len(COLOURS)]
        raw = _picture(COLOURS[name], number)
        image = Image(sha256_hex(raw), 40, 40, "png", len(raw), f"{random.Random(number).getrandbits(160):040x}")
        files[image.image], records[image.image] = raw, image
        for task_type, question, answer, variant, reasoning, wrong in asked(name):
            own = (image.image, task_type, variant, question)
            samples.append(Pair(pair_id(*own, answer, reasoning), *own, answer, reasoning))
            if wrong is not None:
                voted_down.append(Pair(pair_id(*own, wrong, None), *own, wrong))
    judges = tuple(store.settings.judges)
    rows = release.ShardRows(
        samples=to_table(samples, Pair),
        votes=to_table([], Vote),
        verdicts=to_table(
            [
                *(Verdict(pair.pair, True, 2, 2) for pair in samples),
                *(Verdict(pair.pair, False, 0, 2) for pair in voted_down),
            ],
            Verdict,
        ),
        images=to_table(records.values(), Image),
        voted_down=to_table(voted_down, Pair) if voted_down else None,
        claims=[Claim("flat", image, f"{image[:8]}.png", None, licence) for image in records],
    )
    inputs = release.ReleaseInputs(
        shards=[rows],
        read_image=files.__getitem__,
        image_uri=lambda image: f"{store.store.url}/{keys.rendering(image, '0' * 32)}",
        refer=lambda image: _refer(store, image, files[image]),
        stage_counts=[],
        taxonomy=release.TaxonomySummary(0, sorted({pair.task_type for pair in samples}), {1: 2}),
        teacher=store.settings.teacher,
        judges=judges,
        encoder={"name": "conse"},
        prompts={},
        simulated=any(isinstance(judge, Model) and judge.simulated for judge in judges),
    )
    rules = ReleaseSettings(test=test, validation=0, near_duplicate_bits=-1, **chosen)
    version = len(Log(store.store, keys.RELEASES_LOG).read()) + 1
    with release.select_samples(inputs, rules) as selection:
        for path, content in release.build(selection, version=version, history={}):
            raw = files[content.image] if isinstance(content, release.Stored) else content
            assert store.store.put_if_absent(keys.release(version) + path, raw)
            manifest = release.entry(raw)["sha256"]  # of the last
        body = {"version": version, "content": selection.content_hash, "manifest_sha256": manifest}
        body |= {"partial": False, "samples": selection.counts["samples"], "task_types": 2, "images": len(records)}
    Log(store.store, keys.RELEASES_LOG).append({"kind": "done", **body})


def _refer(store: Workspace, image: str, raw: bytes) -> None:
    store.store.put_if_absent(keys.rendering(image, "0" * 32), rendered_for(raw, store.settings.teacher))


def _picture(colour: tuple[int, int, int], number: int) -> bytes:
    out = io.BytesIO()
    shade = tuple(max(0, min(255, each + random.Random(number).randrange(-20, 20))) for each in colour)
    Pillow.new("RGB", (40, 40), shade).save(out, "PNG")
    return out.getvalue()
