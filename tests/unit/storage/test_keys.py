"""The store's keys: fixed, apart from each other, and never one the folder of another."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.snapshot import is_cache

_HEX = st.text("0123456789abcdef", min_size=32, max_size=64)
_NUMBER = st.integers(1, 10**10 - 1)
_STAGE = st.sampled_from(["ingest", "embed", "match", "filter", "write", "vote"])
_LOGS = [
    *("settings", "registry", "budget", "taxonomy/versions", "taxonomy/proposals", "releases/log", "edits"),
    "announcements",
]


def _entry(log: str, number: int) -> str:
    return Log(None, log)._entry_key(number)  # type: ignore[arg-type]


_KEYS = st.one_of(
    st.sampled_from([keys.LAYOUT, keys.LATEST, keys.PROBE]),
    st.builds(_entry, st.sampled_from(_LOGS) | st.builds(keys.journal, _HEX) | st.builds(keys.lease, _HEX), _NUMBER),
    st.builds(_entry, st.builds(keys.type_embeddings, _HEX), _NUMBER),
    st.builds(keys.blob, _HEX),
    st.builds(keys.data, _HEX, _HEX),
    st.builds(keys.marker, _HEX | st.just(keys.TAXONOMY_SHARD), _STAGE, _HEX, _HEX),
    st.builds(keys.encoder, _HEX),
    st.builds(keys.encoder_network, _HEX),
    st.builds(keys.rendering, _HEX, _HEX),
    st.builds(keys.worker, _HEX, _HEX),
    st.builds(keys.report, _HEX),
    st.builds(keys.cache, _HEX | st.sampled_from(["markers.json", "images.parquet", "pairs.parquet", "types.parquet"])),
    st.builds(lambda version, name: keys.release(version) + name, st.integers(1, 999_999), _HEX),
)


@given(one=_KEYS, two=_KEYS)
def test_no_key_is_the_folder_of_another(one: str, two: str) -> None:
    assert not two.startswith(one + "/")
    assert one.isascii()
    assert not set(one) - set("abcdefghijklmnopqrstuvwxyz0123456789/.-_")
    assert all(part not in {"", ".", ".."} for part in one.split("/"))
    assert len(one) < 512


@given(one=_NUMBER, two=_NUMBER)
def test_log_numbers_sort_as_they_count(one: int, two: int) -> None:
    assert (_entry("l", one) < _entry("l", two)) == (one < two)


@given(shard=_HEX, stage=_STAGE, key=_HEX, output=_HEX)
def test_a_markers_name_tells_its_parts(shard: str, stage: str, key: str, output: str) -> None:
    name = keys.marker(shard, stage, key, output)
    assert name.startswith(keys.markers(shard))
    assert name.removeprefix(keys.markers(shard)).split(".") == [stage, key, output, "json"]


def test_the_layout_is_as_written_down() -> None:
    """Changing a key changes the store's format: raise LAYOUT_VERSION and write it down in docs/store-format.md."""
    functions: dict[str, Callable[..., str]] = dict(inspect.getmembers(keys, inspect.isfunction))
    given_parts = {"version": 7, "image": "abc", "rows_hash": "def"}
    shown = {
        name: function(*(given_parts.get(part, part) for part in inspect.signature(function).parameters))
        for name, function in functions.items()
    }
    assert (keys.LAYOUT_VERSION, shown) == (
        2,
        {
            "blob": "blobs/ab/abc",
            "cache": "cache/name",
            "comparisons": "finetune/scores/identity.json",
            "data": "data/de/def-nonce.parquet",
            "encoder": "embeddings/settings_hash.json",
            "encoder_network": "embeddings/settings_hash.int8.zip",
            "journal": "homes/shard/journal",
            "lease": "homes/shard/lease",
            "marker": "homes/shard/markers/stage.key.output.json",
            "markers": "homes/shard/markers/",
            "form": "forms/group",
            "health": "health/group.json",
            "release": "releases/v000007/",
            "rendering": "rendered/ab/abc/how.jpg",
            "renderings": "rendered/ab/abc/",
            "report": "reports/name.html",
            "scores": "finetune/scores/identity.parquet",
            "tally": "homes/shard/tally.json",
            "type_embeddings": "embeddings/encoder/types",
            "worker": "workers/group/worker",
        },
    )


_PREFIXES = {
    value: name for name, value in vars(keys).items() if name.isupper() and isinstance(value, str) and value[-1:] == "/"
}
_ROOT = Path(keys.__file__).parents[2]
# They name folders "data" in files for other programs.
_OTHERS_FOLDERS = {"release", "card", "formats", "mixing", "finetune", "trainers"}


def _spelled_out(file: Path) -> Iterator[str]:
    """Where a module spells out a prefix of the store's keys, docstrings aside."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented)]
    texts = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in texts:
            said = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            for prefix, name in _PREFIXES.items():
                if said.startswith(prefix) and not (prefix == keys.DATA and file.parts[-2] in _OTHERS_FOLDERS):
                    yield f"{file.relative_to(_ROOT)}:{node.lineno}: {said!r} is keys.{name}"


def test_no_other_module_spells_out_a_key() -> None:
    assert {"blobs/", "data/", "homes/", "reports/", "releases/", "embeddings/", "cache/"} <= _PREFIXES.keys()
    files = [file for folder in ("taskgalaxy_ops", "plugins", "dags") for file in (_ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    found = [line for file in files if file != Path(keys.__file__) for line in _spelled_out(file)]
    assert found == []


def test_only_what_is_made_from_other_objects_is_a_cache() -> None:
    assert all(map(is_cache, [keys.cache("markers.json"), keys.tally("a")]))
    assert not any(map(is_cache, [keys.journal("a"), keys.marker("a", "match", "b", "c"), keys.data("ab", "c")]))
