"""The contact sheet: adds up, picks fairly, trusts no text, asks for nothing from outside, and its filters work."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.records import Vote
from taskgalaxy_ops.reports.html import Item, ReportData, render, thumbnail
from taskgalaxy_ops.reports.html import data as report_data
from taskgalaxy_ops.reports.html.data import mixed, pick

HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "]]><!-- <svg onload=alert(1)>",
    "\u202egnp.exe\u2066 \u2028 \x00 \ud800",
    "$css ${js} &lt;b&gt; ' \" `",
    "W" * 3000,
    "مرحبا، ما هذا؟",
]
STAGES = [
    StageCounts("ingest", 12, 10, {"truncated": 2}),
    StageCounts("filter", 100, 60, {"not fitting": 38, "refused": 2}),
    StageCounts("write", 120, 110, {"declined": 7}, pending=3),
    StageCounts("vote", 110, 80, {"below quorum": 30}),
]


def votes(*values: int | None) -> list[Vote]:
    return [Vote("p", f"judge-{place}", value, f"reason {place}", False) for place, value in enumerate(values)]


def sample(number: int = 0, task_type: str = "ocr~printed text ocr~title reading", **more: object) -> Item:
    known = {"question": f"Question {number}?", "answer": "Yes", "votes": votes(1, 1), "sources": ("photos",)}
    return Item(image=f"{number % 7:064x}", task_type=task_type, **{**known, **more})


def reject(number: int = 0, stage: str = "filter", reason: str = "not fitting", **more: object) -> Item:
    return sample(number, **{"stage": stage, "reason": reason, "detail": "No text is there.", "votes": (), **more})


def data(items: list[Item], **more: object) -> ReportData:
    known = {
        "title": "Pilot",
        "simulated": False,
        "stage_counts": STAGES,
        "thumbnails": lambda image: thumbnail(b"", side=32),
    }
    return ReportData(items=items, **{**known, **more})


def block(page: str, name: str) -> object:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


# What is on the page


def test_a_page_holds_every_item_and_each_picture_once() -> None:
    asked: list[str] = []

    def thumbnails(image: str) -> bytes:
        asked.append(image)
        return thumbnail(b"", side=32)

    page = render(data([sample(n) for n in range(20)] + [reject(n) for n in range(20)], thumbnails=thumbnails))
    assert len(block(page, "items-data")) == 40
    assert sorted(asked) == sorted(block(page, "images-data")) == [f"{n:064x}" for n in range(7)]
    assert "All 40 items" in page


def test_an_image_that_is_gone_and_a_file_that_is_none_leave_their_items() -> None:
    def gone(image: str) -> bytes:
        raise NotFoundError(image)

    page = render(
        data([sample(), Item(image=None, stage="ingest", reason="truncated", detail="a.jpg")], thumbnails=gone)
    )
    assert len(block(page, "items-data")) == 2
    assert block(page, "images-data") == {}


def test_facts_forecast_and_notes_are_shown() -> None:
    page = render(data([], facts=[("cost", "$3.10")], forecast=[("cost", "$40 ($31–$52)")], notes=["Fifty images."]))
    for text in ("$3.10", "Forecast</h2>", "$40 ($31–$52)", "Fifty images."):
        assert text in page


def test_simulated_is_unmissable_and_only_where_it_is_true() -> None:
    page = render(data([sample()], simulated=True))
    assert page.index('class="banner"') < page.index("<h1>")
    assert "<title>Simulated: Pilot</title>" in page
    assert 'class="tag"' in page
    real = render(data([sample()]))
    assert 'class="banner"' not in real
    assert 'class="tag"' not in real


def test_an_empty_data_set_has_a_page() -> None:
    page = render(data([], stage_counts=[]))
    assert "Nothing has reached a task type yet." in page
    assert block(page, "items-data") == []


# Picking


def test_too_many_items_are_picked_evenly_and_the_page_says_so() -> None:
    items = [sample(n, f"ocr~type {n % 50}") for n in range(11_000)]
    items += [reject(n) for n in range(1_300)] + [reject(n, "vote", "below quorum") for n in range(45)]
    page = render(data(items), max_items=600)
    assert "<strong>600 of 12,345 shown</strong>" in page
    shown = block(page, "items-data")
    assert Counter(item["outcome"] for item in shown) == {"sample": 300, "reject": 300}
    assert Counter(item["reason"] for item in shown) == {"": 300, "not fitting": 255, "below quorum": 45}
    assert set(Counter(item["type"] for item in shown if item["outcome"] == "sample").values()) == {6}


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6), st.sampled_from(["", "filter", "vote"])), max_size=80),
    st.integers(1, 30),
    st.integers(1, 20),
)
def test_a_pick_in_parts_is_the_beginning_of_all_in_order(rows, most, at_once) -> None:
    items = [
        replace(sample(n, f"type {kind}"), stage=stage, reason=f"reason {n % 3}" if stage else "")
        for n, kind, stage in rows
    ]
    with patch.object(report_data, "_AT_ONCE", at_once):
        picked = pick(iter(items), most)
    assert picked.items == mixed(items)[:most]
    assert picked.total == len(items)
    assert picked.samples.total() + picked.rejects.total() == len(items)


def test_the_pick_depends_on_the_items_alone() -> None:
    items = [sample(n, f"ocr~type {n % 5}") for n in range(60)] + [reject(n) for n in range(60)]
    assert mixed(items) == mixed(reversed(items))
    assert Counter(item.question for item in mixed(items)) == Counter(item.question for item in items)


def test_the_funnel_is_also_a_table() -> None:
    cells = re.findall(r"<t[hd][^>]*>([^<]*)", render(data([])).split("<tbody>")[1].split("</tbody>")[0])
    assert cells[12:18] == ["write", "120 asked for", "110 pairs", "7", "3", "7 declined"]


# Hostile text


def hostile_data() -> ReportData:
    items = []
    for place, text in enumerate(HOSTILE):
        spoken = [Vote(text, text, 1, text, False), Vote(text, text, None, text, True)]
        more = {"stage": text, "detail": text} if place % 2 else {}
        more |= dict.fromkeys(["reason", "variant", "pair", "answer", "reasoning", "licence", "attribution"], text)
        ballots = spoken if place % 3 else ()
        items.append(
            Item(image=text, task_type=f"{text}~{text}", question=text, votes=ballots, sources=(text,), **more)
        )
    rows = [(text, text) for text in HOSTILE]
    stages = [StageCounts(text, 2, 1, {text: 1}) for text in HOSTILE]
    return data(items, title=HOSTILE[0] + HOSTILE[1], stage_counts=stages, facts=rows, forecast=rows, notes=HOSTILE)


class Elements(HTMLParser):
    """Every element and attribute of a page, outside its data blocks."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_hostile_text_is_never_markup() -> None:
    page = render(hostile_data())
    page.encode("utf-8")  # can be written
    for text in HOSTILE[:3]:
        assert text not in page
    assert "\u202e" not in page
    assert "\x00" not in page
    found = Elements(page).found
    assert Counter(tag for tag, _ in found)["script"] == 3
    assert not [tag for tag, _ in found if tag == "img"]
    assert not [name for _, attributes in found for name in attributes if name.startswith("on") or name == "style"]
    shown = block(page, "items-data")
    told = {text.replace("\ud800", "\ufffd") for text in HOSTILE}
    assert {item["question"] for item in shown} == told  # nothing is lost on the way


def test_data_blocks_cannot_end_their_element() -> None:
    page = render(hostile_data())
    for name in ("items-data", "images-data"):
        raw = re.search(rf'id="{name}">(.*?)</script>', page, re.S)
        assert raw
        assert not set("<>&\u2028\u2029") & set(raw[1])


def test_nothing_is_asked_from_outside() -> None:
    page = render(hostile_data())
    for _, attributes in Elements(page).found:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page.replace("url(#hatch)", "")


def test_the_policy_allows_the_page_s_own_script_and_style_alone() -> None:
    page = render(data([sample()]))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy[1]
    for tag in ("style", "script"):
        own = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert len(own) == 1
        digest = base64.b64encode(hashlib.sha256(own[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


# In a real browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.fixture
def opened(tmp_path):
    """Opens a page at an address's hash and gives the document as the browser has it then."""

    def opened(page: str, hash: str = "") -> str:
        path = tmp_path / "sheet.html"
        path.write_text(page, encoding="utf-8")
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        flags += (
            "--disable-component-update --disable-sync --window-size=1400,2000 --virtual-time-budget=3000 --dump-dom"
        )
        command = [str(CHROMIUM), *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", path.as_uri() + hash]
        return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode()

    return opened


def cards(dom: str) -> list[str]:
    return re.findall(r'<li class="card (?:sample|reject)">.*?<p class="foot">.*?</li>', dom, re.S)


def said_count(dom: str) -> str:
    found = re.search(r'<output id="count"[^>]*>([^<]*)', dom)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def page() -> str:
    items = [sample(n) for n in range(5)]
    items += [sample(n, "counting~object counting", sources=("shapes",), votes=votes(1, 0, 1)) for n in range(5, 9)]
    items += [reject(n) for n in range(9, 12)]
    items += [
        reject(n, "vote", "below quorum", votes=votes(0, 1, 0), question="How many coins?") for n in range(12, 14)
    ]
    abstained = {"stage": "release", "reason": "duplicate question", "detail": "of 71c2", "votes": votes(1, 1, None)}
    items += [sample(14, task_type="counting~object counting", variant="chain_of_thought", **abstained)]
    return render(data(items, simulated=True))


@in_browser
@pytest.mark.parametrize(
    ("hash", "count"),
    [
        ("", 15),
        ("#outcome=reject&type=ocr", 5),
        ("#outcome=sample", 9),
        ("#stage=vote&reason=below+quorum", 2),
        ("#type=counting~object%20counting", 5),
        ("#source=shapes", 4),
        ("#votes=disagree", 6),
        ("#votes=abstained", 1),
        ("#votes=agree&outcome=sample", 5),
        ("#stage=release&votes=abstained", 1),
        ("#variant=chain_of_thought", 1),
        ("#q=COINS+many", 2),
        ("#image=" + f"{3:064x}", 2),
        ("#outcome=sample&q=coins", 0),
        ("#type=oc", 0),
    ],
)
def test_filters_from_the_address_show_what_they_name(page: str, opened, hash: str, count: int) -> None:
    dom = opened(page, hash)
    assert said_count(dom) == f"{count} of 15 match"
    assert len(cards(dom)) == count
    assert ('id="none" hidden' not in dom) == (count == 0)
    for card in cards(dom):
        if "outcome=reject" in hash:
            assert card.startswith('<li class="card reject">')
        if "type=ocr" in hash:
            assert "title reading" in card


@in_browser
def test_a_card_shows_what_one_judges_by(page: str, opened) -> None:
    (card, _) = cards(opened(page, "#stage=vote"))
    for text in ("How many coins?", "✕ vote: below quorum", "judge-1", "reason 2", "data:image/jpeg;base64,", "photos"):
        assert text in card
    assert card.count('aria-label="rejects"') == 2
    assert card.count('aria-label="approves"') == 1
    assert "No text is there." not in card  # the votes say it
    assert "No text is there." in cards(opened(page, "#stage=filter"))[0]
    assert "of 71c2" in cards(opened(page, "#stage=release"))[0]


@in_browser
def test_cards_are_made_as_they_come_near(opened) -> None:
    dom = opened(render(data([sample(n) for n in range(600)])))
    assert said_count(dom) == "600 of 600 match"
    assert 36 <= len(cards(dom)) < 600


@in_browser
def test_hostile_text_stays_text_in_the_browser(opened) -> None:
    dom = opened(render(hostile_data()), "#sort=type")
    assert "<title>owned" not in dom
    for tag, attributes in Elements(dom).found:
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "img" or (attributes["src"] or "").startswith("data:image/jpeg;base64,")
    assert len(cards(dom)) == len(HOSTILE)
    assert "U+202E" in dom
