"""Base data: each published layout is read, rows that cannot be used say why, and nothing is opened outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import base_sets as sets
import pytest
from base_sets import said

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.release.base_data import LAYOUTS, BaseRow, files_in, rows_in
from taskgalaxy_ops.release.base_data.checking import Unusable, checked_rows, image_file, turns_of


def read(layout: str, *files: Path) -> list[tuple[BaseRow, Any]]:
    return [(row, turns) for file in files for _, row, turns in checked_rows("set", layout, file)]


def human(row: tuple[BaseRow, Any]) -> str:
    return str(row[1][0][1])


def test_sharegpt4v_and_allava_are_read(tmp_path: Path) -> None:
    found = read("llava", sets.sharegpt4v(tmp_path, 2), *sets.allava(tmp_path))
    assert [row.id for row, _ in found] == ["000000000000"] * 2 + ["allava_laion_cap_1", "heR0vZB"]
    assert [row.images for row, _ in found][2:] == [("allava_laion/images/1.jpeg",), ()]
    assert list(map(human, found))[:2] == ["Describe 0.", "What do you see? 1"]


def test_cambrian_is_read_and_its_system_turns_are_counted(tmp_path: Path) -> None:
    found = read("llava", sets.cambrian(tmp_path))
    assert [row.images for row, _ in found] == [("clevr/0.png",), (), (), ()]
    assert [turns for _, turns in found][3] is Unusable.SYSTEM


def test_onevision_is_read_by_configuration_without_its_pictures(tmp_path: Path) -> None:
    files = files_in("set", "onevision", [str(sets.onevision(tmp_path))])
    assert [file.parent.name for file in files] == ["geo3k", "magpie_pro(l3_80b_mt)"]
    found = read("onevision", *files)
    assert [row.held for row, _ in found] == [1] * 4 + [0] * 4
    assert list(map(human, found))[:2] == ["Q0?", "Q1?"], "a row without a mark shows its image first"
    pictures = dict(LAYOUTS.get("onevision").pictures(files[0], [2, 4]))
    assert pictures == {2: [sets.png(61)], 4: [sets.png(63)]}


def test_messages_are_read_with_texts_and_with_parts(tmp_path: Path) -> None:
    parts = [{"type": "image", "text": None}, {"type": "text", "text": "Is <image> a word?"}]
    rows = [
        {
            "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Yes."}],
            "images": ["a.png"],
        }
        for content in ("<image>What?", parts)
    ]
    found = read("messages", sets.lines(tmp_path / "rows.jsonl", rows))
    assert list(map(human, found)) == ["What?", "Is ‹image› a word?"]


def row(turns: Any, images: int = 1, **more: Any) -> BaseRow:
    return BaseRow(id="1", turns=tuple(map(tuple, turns)), images=("a.png",) * images, **more)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (row([]), Unusable.NO_TURNS),
        (row([("human", "Q")]), Unusable.ORDER),
        (row([("gpt", "A"), ("human", "Q")]), Unusable.ORDER),
        (row([("system", "S"), ("human", "Q"), ("gpt", "A")]), Unusable.SYSTEM),
        (row([("human", "Q"), ("gpt", "A")], system=True), Unusable.SYSTEM),
        (row([("human", "Q"), ("gpt", "A")], video=True), Unusable.VIDEO),
        (row([("human", "<image>\n"), ("gpt", "A")]), Unusable.EMPTY),
        (row([("human", "Q"), ("gpt", " \n")]), Unusable.EMPTY),
        (row([("human", "Q \ud800"), ("gpt", "A")]), Unusable.NO_TEXT),
        (BaseRow(id="\udfff", turns=(("human", "Q"), ("gpt", "A"))), Unusable.NO_TEXT),
        (row([("human", "<image> Q"), ("gpt", "A")], 0), Unusable.MARKS),
        (row([("human", "<image><image> Q"), ("gpt", "A")]), Unusable.MARKS),
        (row([("human", "Q"), ("gpt", "A")], 2), Unusable.MARKS),
        (row([("human", "Q"), ("gpt", "A"), ("human", "<image> R"), ("gpt", "B")]), Unusable.AMONG),
        (row([("human", "<image> or <image>?"), ("gpt", "A")], 2), Unusable.AMONG),
    ],
)
def test_a_row_that_cannot_be_used_says_why(found: BaseRow, why: Unusable) -> None:
    assert turns_of(found) is why


def test_marks_leave_the_text_and_special_tokens_are_neutralised() -> None:
    assert turns_of(row([("human", "What is <image>\nthis?"), ("gpt", "A <image></s>")])) == (
        ("human", "What is this?"),
        ("gpt", "A ‹image›‹/s›"),
    )
    assert turns_of(row([("user", "<image>\n<image>\nQ"), ("assistant", "A")], 2)) == (("human", "Q"), ("gpt", "A"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"id": 1, "conversations": []}\n{"id": 2}\n', "row 2, .*'conversations'"),
        ('{"conversations": []}\n{"conv\n', "row 2, .*the line is no JSON"),
        ('[{"conversations": []}, {"conversa', "row 1, "),
        ("not JSON", "neither a JSON list nor one object a line"),
        ('[{"conversations": []}, 7]', "row 2, .*no object"),
        ('[{"conversations": "text"}]', "row 1, .*is no list"),
        (json.dumps([{"conversations": said("Q"), "image": 7}]), "row 1, .*neither a path nor a picture"),
        (json.dumps([{"conversations": [{"from": "tool", "value": "x"}]}]), "row 1, .*by 'tool'; known are human"),
        (json.dumps([{"conversations": [{"from": "gpt", "value": 3}]}]), "row 1, .*text of a turn is 3"),
    ],
)
def test_what_is_not_understood_is_named_with_its_row(tmp_path: Path, text: str, told: str) -> None:
    file = sets.written(tmp_path / "odd.json", text)
    with pytest.raises(SourceError, match=rf"base data set: .*odd.json.*{told}"):
        read("llava", file)


def test_a_file_of_another_kind_and_a_folder_without_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "odd.parquet").write_bytes(b"no Parquet")
    with pytest.raises(SourceError, match=r"odd.parquet cannot be read as 'onevision'"):
        list(rows_in("set", "onevision", tmp_path / "odd.parquet"))
    for place in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(SourceError, match=r"is no file .json or .jsonl"):
            files_in("set", "llava", [str(place)])


def test_no_image_is_looked_for_outside_its_folder(tmp_path: Path) -> None:
    folder, secret = tmp_path / "images", tmp_path / "secret.png"
    secret.write_bytes(sets.png(1))
    sets.picture(folder, "a/b.png", 2)
    (folder / "empty.png").touch()
    (folder / "link.png").symlink_to(secret)
    (folder / "away").symlink_to(tmp_path)
    assert image_file(folder, "a/b.png") == folder / "a/b.png"
    assert image_file(folder, str(folder / "a/b.png")) == folder / "a/b.png"
    for named in ("../secret.png", "a/../../secret.png", str(secret), "link.png", "away/secret.png"):
        assert image_file(folder, named) is Unusable.OUTSIDE, named
    for named in ("c.png", "a", "empty.png", "a\0.png", "x" * 5000, "x" * 300, "\ud800.png"):
        assert image_file(folder, named) is Unusable.MISSING, named
    assert image_file(folder, "https://example.org/a.png") is Unusable.REMOTE
    assert image_file(folder, "link.png", follow_links=True) == folder / "link.png"
    assert image_file(folder, "../secret.png", follow_links=True) is Unusable.OUTSIDE
