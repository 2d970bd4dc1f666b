"""Stand-ins of the paper's sixteen benchmarks are read whole, and what leaked of them is named by benchmark and item.

Files, columns and their types are those of lmms-lab's data sets on the hub; of MathVista, Q-Bench and Q-Bench-CN, those
of the makers'. One picture of each stand-in is among the store's images, and a model asks one of its questions.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from tiny import TinyModels, tiny_settings, tiny_workspace

from benchmarks.planted_leaks import picture_leaks, question_leaks, questions
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.encoders.base import open_encoder
from taskgalaxy_ops.models.http import Sender
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.operations import benchmarks
from taskgalaxy_ops.operations.leaks import Example, LeakReport, leak_report
from taskgalaxy_ops.sources.builtin import _images

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})  # as the hub's image feature is stored
TYPES = {"image": IMAGE, "images": pa.list_(IMAGE), "strings": pa.list_(pa.string()), "int64s": pa.list_(pa.int64())}
TYPES["meta"] = pa.struct({"split": pa.string(), "skills": pa.list_(pa.string())})
CHINESE = ("图中的旧港口旁边一共停着多少艘红色木船", "这张照片里最高的灯塔左边有几只白色海鸥",
           "市场摊位上绿色篮子里的苹果比梨多多少个", "这张照片的整体清晰度受到哪一种失真的影响最大",
           "画面右下角的夜间路灯周围是否出现明显噪点", "与背景里的山峰相比前景花朵的对焦是否准确")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """A benchmark in small. Columns that are not given have any value of their type."""

    columns: str  # with their types, as the data set's card has them; those without one are strings
    file: str = "data/test-00000-of-00001.parquet"
    ids: str = ""  # the column with the items' ids
    items: tuple[str, ...]  # the ids by which they are named: of several with one id, the later ones have a number
    shows: tuple[tuple[int, ...], ...] = ((0,), (1,), (2,))  # by row, its pictures; the second one leaks
    given: dict[str, Any] = field(default_factory=dict)  # by column, a value of all rows, or a tuple of each row's
    options: tuple[str, ...] = ()
    phrase: str = ""  # what its questions end with
    leaks: tuple[str, str]  # how its picture and its last question come into the store

    @property
    def types(self) -> dict[str, Any]:
        named = dict((column + ":string").split(":")[:2] for column in self.columns.split())
        return {name: TYPES.get(kind) or pa.type_for_alias(kind) for name, kind in named.items()}

    def rows(self, pictures: list[bytes], asked: list[str]) -> Iterator[dict[str, Any]]:
        """Its rows, in the order of the items."""
        for number, (item, shown) in enumerate(zip(self.items, self.shows, strict=True)):
            features = [{"bytes": pictures[each], "path": f"{each}.png"} for each in shown]
            row: dict[str, Any] = {}
            for name, kind in self.types.items():
                at = int(name[-1]) - 1 if name[-1].isdigit() else 0  # of image_1, image_2 ...
                value = self.given.get(name, (f"{name} {item}",) * 9 if kind == "string" else number)
                row[name] = value[number] if isinstance(value, tuple) else value
                if kind == IMAGE:
                    row[name] = features[at] if at < len(features) else None
                elif kind == TYPES["images"]:
                    row[name] = features
                elif pa.types.is_nested(kind) and name not in self.given:
                    row[name] = {"split": "testmini", "skills": ["one"]} if kind == TYPES["meta"] else []
            if self.ids:
                row[self.ids] = pa.scalar(item.split(" (")[0]).cast(self.types[self.ids]).as_py()
            yield row | {"question": asked[number] + self.phrase}


NORTH, EMPTY = ("north", "south"), {"hint": "nan", "C": "nan", "D": "nan"}
MMBENCH = "index:int64 question hint answer A B C D category image:image source L2-category comment split"
TEST, DEV = ([f"{file}-{row}" for row in range(3)] for file in ("test-00000-of-00001", "质衡-问答-验证集"))
STAND_INS = {
    "MME": StandIn(
        columns="question_id image:image question answer category", shows=((0,), (0,), (1,), (1,)), ids="question_id",
        items=("OCR/0002.jpg", "OCR/0002.jpg (2)", "OCR/0003.jpg", "OCR/0003.jpg (2)"),
        phrase=" Please answer yes or no.", leaks=("exact", "verbatim")),
    "MMBench": StandIn(
        columns=MMBENCH, file="dev-00000-of-00001.parquet", ids="index", items=("241", "252", "1000241"),
        given={"A": "north", "B": "south", **EMPTY}, options=NORTH, leaks=("re-encoded", "paraphrased")),
    "MMBench-CN": StandIn(
        columns=MMBENCH, file="dev-00000-of-00001.parquet", ids="index", items=("0", "1", "2"),
        given={"A": "北", "B": "南", **EMPTY}, options=("北", "南"), leaks=("cropped", "verbatim")),
    "POPE": StandIn(
        columns="id question_id question answer image_source image:image category", shows=((0,), (1,), (0,)),
        ids="question_id", items=("1", "2", "1 (2)"), leaks=("resized", "reordered")),
    "LLaVA-in-the-Wild": StandIn(
        columns="question_id:int64 question image:image caption gpt_answer category image_id", ids="question_id",
        items=("0", "1", "2"), file="data/train-00000-of-00001.parquet", leaks=("recoloured", "paraphrased")),
    "MM-Vet": StandIn(
        columns="question_id image:image question answer image_source capability", ids="question_id",
        items=("v1_0", "v1_1", "v1_2"), leaks=("mirrored", "reordered")),
    "TextVQA": StandIn(
        columns="image_id question_id:int32 question question_tokens:strings image:image image_width:int32 "
        "image_height:int32 flickr_original_url flickr_300k_url answers:strings image_classes:strings set_name "
        "ocr_tokens:strings", ids="question_id", items=("34602", "34603", "34604"), leaks=("overlaid", "paraphrased")),
    "ScienceQA": StandIn(
        columns="image:image question choices:strings answer:int8 hint task grade subject topic category skill lecture "
        "solution", items=(*TEST,), given={"choices": [*NORTH]}, options=NORTH, leaks=("exact", "reordered")),
    "MathVista": StandIn(
        columns="pid question image:string decoded_image:image choices:strings unit precision:float64 answer "
        "question_type answer_type metadata:meta query", file="data/testmini-00000-of-00001-725687bf7a18d64b.parquet",
        ids="pid", items=("1", "2", "3"), given={"image": ("images/1.jpg", "images/2.jpg", "images/3.jpg")},
        leaks=("re-encoded", "paraphrased")),
    "ChartQA": StandIn(columns="type question answer image:image", items=(*TEST,), leaks=("cropped", "reordered")),
    "AI2D": StandIn(
        columns="question options:strings answer image:image", items=(*TEST,), given={"options": [*NORTH]},
        options=NORTH, leaks=("resized", "paraphrased")),
    "Q-Bench": StandIn(
        columns="id:int64 image:image question option0 option1 option2 option3 question_type:int64 "
        "question_concern:int64 correct_choice", ids="id", items=("0", "1", "2"), options=NORTH,
        given={"option0": "north", "option1": "south", "option2": "N/A", "option3": "N/A"},
        leaks=("recoloured", "reordered")),
    "Q-Bench-CN": StandIn(
        columns="img_path question candidates:strings correct_ans", file="质衡-问答-验证集.json", items=(*DEV,),
        given={"img_path": ("00.png", "01.png", "02.png"), "candidates": ["北", "南"]}, options=("北", "南"),
        leaks=("mirrored", "verbatim")),
    "HallusionBench": StandIn(
        columns="category subcategory visual_input set_id figure_id sample_note question_id question gt_answer_details "
        "gt_answer filename image:image", ids="question_id", items=("0", "1", "0 (2)"), shows=((0,), (1,), ()),
        given={"filename": ("./hallusion_bench/VD/0.png", "./hallusion_bench/VD/1.png", None)},
        file="data/image-00000-of-00001.parquet", leaks=("overlaid", "paraphrased")),
    "SEED": StandIn(
        columns="answer choice_a choice_b choice_c choice_d data_id data_type question question_id "
        "question_type_id:int16 image:images segment:int64s", ids="question_id", items=("101669", "10_0", "10_1"),
        shows=((0,), (2, 1), (2,)), options=("north", "south", "east", "west"), leaks=("exact", "reordered"),
        given={"choice_a": "north", "choice_b": "south", "choice_c": "east", "choice_d": "west"}),
    "MMMU": StandIn(
        columns="id question options explanation image_1:image image_2:image image_3:image image_4:image image_5:image "
        "image_6:image image_7:image img_type answer topic_difficulty question_type subfield", ids="id",
        items=("validation_Art_1", "validation_Art_2", "validation_Math_1"), shows=((0, 1), (2,), (0,)),
        file="data/validation-00000-of-00001.parquet", phrase=" <image 1>", options=NORTH,
        given={"options": "['north', 'south']", "img_type": "['Photographs']"}, leaks=("resized", "paraphrased")),
}  # fmt: skip


def written(folder: Path, made: StandIn, pictures: list[bytes], asked: list[str]) -> Path:
    """Write a stand-in as it lies after a download, an archive of pictures unpacked where nothing else has them."""
    file, rows = folder / made.file, list(made.rows(pictures, asked))
    file.parent.mkdir(parents=True)
    (folder / "README.md").write_text("A card.")
    if file.suffix == ".json":
        (folder / "images").mkdir()
        for row, raw in zip(rows, pictures, strict=True):
            (folder / "images" / row["img_path"]).write_bytes(raw)
        file.write_text(json.dumps(rows, ensure_ascii=False))
        return file
    parts = {file: [row for row, shown in zip(rows, made.shows, strict=True) if shown]}
    if len(parts[file]) < len(rows):  # HallusionBench has a split of its own for them
        parts[file.with_name(f"non_{file.name}")] = [row for row in rows if row not in parts[file]]
    for part, its_rows in parts.items():
        pq.write_table(pa.Table.from_pylist(its_rows, pa.schema(made.types)), part)
    if "decoded_image" in made.types:  # MathVista has its annotations twice, once with pictures that lie in an archive
        notes = {row["pid"]: {name: row[name] for name in row if name != "decoded_image"} for row in rows}
        (folder / "annot_testmini.json").write_text(json.dumps(notes))
        (folder / "images.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    return folder


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What `benchmarks add` and `benchmarks check` said, and what had been planted, by benchmark."""

    added: dict[str, benchmarks.Added]
    report: LeakReport
    images: dict[str, str]  # the store's copies of pictures
    asked: dict[str, str]  # what the model asks
    questions: dict[str, str]  # of which item's question that was made
    others: list[str]  # what the model asks and is to be found nowhere

    def named(self, what: str) -> Iterator[Example]:
        """The findings about images, or about questions."""
        return (each for each in self.report.examples if each.what == f"benchmark {what}")


def drawn(count: int) -> Iterator[bytes]:
    """Charts, tables, maps and the like, no two alike."""
    for made in _images("documents", count, 11):
        image, out = upright(made.raw).convert("RGB"), io.BytesIO()
        image.thumbnail((400, 400))
        image.save(out, "PNG")
        yield out.getvalue()


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    folder = tmp_path_factory.mktemp("stand-ins")
    english, chinese = iter(questions(4 * len(STAND_INS), "stand-ins")), iter(CHINESE)
    pictures, images, asked, own, places = drawn(3 * len(STAND_INS) + 3), {}, {}, {}, {}
    others: list[str] = []
    (folder / "images").mkdir()
    for name, made in STAND_INS.items():
        shown = [next(pictures) for _ in {each for some in made.shows for each in some}]
        texts = [(next(chinese), "") if name.endswith("-CN") else next(english) for _ in made.items]
        places[name] = written(folder / name, made, shown, [text for text, _ in texts])
        copy = {"exact": shown[1], **picture_leaks(shown[1], name)}[made.leaks[0]]
        (folder / "images" / f"{name}.png").write_bytes(copy)
        said = question_leaks(*texts[-1], name)
        images[name], asked[name], own[name] = sha256_hex(copy), said[made.leaks[1]], texts[-1][0]
        others += filter(None, [said["translated"]])
    for number, raw in enumerate(pictures):
        (folder / "images" / f"clean {number}.png").write_bytes(raw)
    others += [text for text, _ in english]
    models, turns, reply = TinyModels(), cycle([*asked.values(), *others]), tiny._reply
    always: dict[str, dict[str, Any]] = {"filter": {"fits": True, "reason": "so"}, "vote": {"vote": 1, "reason": "so"}}

    def replied(stage: str, drawn: float, token: str) -> dict[str, Any]:
        if stage == "write":
            return {"question": next(turns), "answer": "4", "reasoning": f"since {token}"}
        return always.get(stage) or reply(stage, drawn, token)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sender, "post", lambda _, model, raw, seconds: models.post(model, raw))
        patch.setattr(tiny, "_reply", replied)
        workspace = tiny_workspace(tiny_settings(folder / "images", ingest={"shard_images": 32}))
        workspace.__dict__["encoder"] = open_encoder("conse", threads=2)
        pipeline.ingest(workspace, "mine")
        pipeline.generate(workspace)
        added = {name: benchmarks.add(workspace, name, str(place)) for name, place in places.items()}
        report = leak_report(workspace)
    yield Checked(added=added, report=report, images=images, asked=asked, questions=own, others=others)


@pytest.mark.parametrize("name", STAND_INS)
def test_a_stand_in_is_read_whole(name: str, checked: Checked) -> None:
    made, added = STAND_INS[name], checked.added[name]
    assert added.benchmark.unread == {}
    assert added.benchmark.items == len(made.items)
    assert added.pictures == len({each for shown in made.shows for each in shown})


@pytest.mark.parametrize("name", STAND_INS)
def test_a_picture_that_leaked_is_named_with_its_item(name: str, checked: Checked) -> None:
    made = STAND_INS[name]
    item = min(item for item, shown in zip(made.items, made.shows, strict=True) if 1 in shown)
    found = [(each.benchmark, each.item) for each in checked.named("image") if each.image == checked.images[name]]
    assert found == [(name, item)]


@pytest.mark.parametrize("name", STAND_INS)
def test_a_question_that_leaked_is_named_with_its_item(name: str, checked: Checked) -> None:
    found = [each for each in checked.named("question") if each.question == checked.asked[name]]
    assert {(each.benchmark, each.item) for each in found} == {(name, STAND_INS[name].items[-1])}
    assert found[0].theirs is not None
    assert found[0].theirs.question.startswith(checked.questions[name])
    assert found[0].theirs.options == STAND_INS[name].options


def test_clean_pictures_and_other_or_translated_questions_are_not_named(checked: Checked) -> None:
    assert checked.report.samples > len(checked.asked) + len(checked.others), "each question was asked"
    assert {each.image for each in checked.named("image")} <= set(checked.images.values())
    assert {each.question for each in checked.named("question")} <= set(checked.asked.values())
