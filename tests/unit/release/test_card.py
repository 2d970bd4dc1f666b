"""The card's page and pictures: hostile text stays text, a browser shows them, and what is taken down leaves them."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from e2e.browsing import browser
from huggingface_hub import DatasetCard

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.records import Claim, Vote
from taskgalaxy_ops.release.markdown import with_code
from taskgalaxy_ops.release.redact import withdraw
from taskgalaxy_ops.settings import ReleaseSettings
from unit.release.test_publish import NASTY, files_of, image_of, model, pair_of, plan_of, release_inputs, some_material


class _Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_files() -> dict[str, bytes]:
    image = image_of(1)
    hostile = dataclasses.replace(pair_of(image, f"a{NASTY}~{NASTY}", NASTY, NASTY), answer=NASTY)
    votes = {hostile.pair: [Vote(hostile.pair, NASTY[:90], 1, NASTY, False)]}
    claims = {image.image: [Claim(NASTY, image.image, NASTY, NASTY, NASTY, NASTY)]}
    held = release_inputs([hostile], [image], votes=votes, claims=claims, rules={NASTY: NASTY})
    counts = [StageCounts(NASTY, 300, 1, {NASTY: 1, "<b>&": 297}, 1)]
    return files_of(plan_of(held.but(stage_counts=counts), ReleaseSettings()))


def test_the_page_holds_no_element_of_a_text_and_loads_nothing_else() -> None:
    files = hostile_files()
    page = _Elements(files["card.html"].decode())
    ours = (
        "html head meta title style body main h1 h2 p a div table thead tbody tr th td img br code pre ul li strong em"
    )
    assert {tag for tag, _ in page.elements} <= set(ours.split()) - {"a"}
    assert {name for _, attributes in page.elements for name in attributes} <= {
        *("lang", "charset", "http-equiv", "content", "name", "src", "alt", "class")
    }
    pictures = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    assert pictures and set(pictures) <= files.keys()
    assert "<script>alert(1)</script>" in page.text.replace("\u200b", "")


def test_a_formats_words_have_their_code_as_code() -> None:
    files = files_of(plan_of(some_material(6), ReleaseSettings(formats=("llava", "parquet", "swift"))))
    assert "with the release's folder as `ROOT_IMAGE_DIR`.\n" in files["README.md"].decode()
    assert ("code", {}) in (page := _Elements(files["card.html"].decode())).elements
    assert "`" not in page.text and "ROOT_IMAGE_DIR." in page.text
    assert with_code("<b> `a<b` *c* `d") == "&#60;b&#62; `a<b` &#42;c&#42; &#96;d"


def test_the_drawings_are_files_of_their_own_without_script() -> None:
    files = hostile_files()
    for path in ("card/funnel.svg", "card/task-types.svg"):
        elements = [each.tag.rpartition("}")[2] for each in ElementTree.fromstring(files[path]).iter()]
        assert elements[0] == "svg" and "script" not in elements and "foreignObject" not in elements
        assert "alert(1)" in "".join(ElementTree.fromstring(files[path]).itertext())


def test_a_browser_shows_the_page_with_all_its_pictures(tmp_path: Path) -> None:
    files = files_of(plan_of(some_material(6, simulated=True), ReleaseSettings()))
    for path, raw in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(raw)
    with browser() as page:
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.goto((tmp_path / "card.html").as_uri())
        widths = page.evaluate("[...document.images].map(each => each.naturalWidth)")
        assert len(widths) == 5 and all(widths) and told == []
        assert "SIMULATED" in page.inner_text("blockquote.warning h1") and "[!" not in page.inner_text("body")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_hub_reads_the_header() -> None:
    files = files_of(plan_of(some_material(6), ReleaseSettings()))
    found = DatasetCard(files["README.md"].decode(), ignore_metadata_errors=False).data
    assert found.license == ["cc-by-4.0"] and found.size_categories == ["n<1K"]
    assert found.annotations_creators == ["machine-generated"]
    assert found.configs[0]["config_name"] == "default"  # type: ignore[attr-defined]


def test_a_take_down_makes_the_page_anew() -> None:
    plan = plan_of(some_material(6), ReleaseSettings())
    gone = plan.shown[0]
    files = files_of(plan)
    thumbnail = f"samples/{gone.pair[:16]}.jpg"
    assert thumbnail in files["card.html"].decode()

    def read(path: str) -> bytes:
        if path not in files:
            raise NotFoundError(path)
        return files[path]

    for path, content in withdraw(files["manifest.json"], read, [gone.image]):
        if content is None:
            del files[path]
        else:
            files[path] = content
    page = files["card.html"].decode()
    assert thumbnail not in page and "Withdrawn in part" in page and thumbnail not in files
    assert {"card/funnel.svg", "card.html"} <= json.loads(files["manifest.json"])["files"].keys()


def test_the_card_says_whose_terms_bind_the_answers_of_a_model_and_of_no_program() -> None:
    held = some_material(4)
    assert (
        "the words of teacher-model: the terms of" in files_of(plan_of(held, ReleaseSettings()))["README.md"].decode()
    )
    stand_in = held.but(teacher=model("teacher", simulated=True), simulated=True)
    assert "the terms of" not in files_of(plan_of(stand_in, ReleaseSettings()))["README.md"].decode()
