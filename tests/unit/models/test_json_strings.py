"""Texts in replies come through as the model meant them, or not at all: with backslashes doubled, and without."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgalaxy_ops.generation.stages.vote import vote_template
from taskgalaxy_ops.generation.stages.write import write_template
from taskgalaxy_ops.models.latex import COMMANDS, COULD_BE_TEXT
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.text import clean

MODEL = Model(name="t", base_url="http://x/v1", model="gpt-x")
WRITE = write_template("Write.", MODEL, "plain")
UNIT = WRITE.unit("ab" * 32, {"task_type": "a~b"})


def read(literal: str, quote: str = '"') -> tuple[str | None, str]:
    """The answer in a reply in which it stands as this literal (without quotation marks), and what is wrong with it."""
    text = f'{{"pairs": [{{"index": 1, "question": "Q?", "answer": {quote}{literal}{quote}, "reasoning": ""}}]}}'
    answers, fault = WRITE.parse([UNIT], text)
    return (answers[UNIT.key].value["answer"] if answers else None), fault


def naive(text: str) -> str:
    """A text as a model writes it that forgets to double backslashes, but not what else JSON wants."""
    return text.replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")


# As JSON wants it: whatever a person could mean comes through

HONEST = [
    "Two lines:\nthe second one",
    "- one\n- two\n\n* three\n* four\n+ five",
    "1. Start\n2. End",
    "name\tage\nBob\t5\nAnn\t7",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "a\nb\nc\nd\ne\nf",
    "Q:\nWhat is it?\nA:\nA cat.",
    "def f(x):\n\treturn x\n\nprint(f(1))",
    "for i in range(3):\n    print(i)\n    n = i\ntotal += n",
    "```python\nx = 1\ny = 2\n```",
    'The sign says "OPEN\nDAILY".',
    '"STOP"\n"GO"',
    "the signs ('EXIT\nONLY')",
    r"It is $\frac{1}{2}\times\theta$.",
    "First $\\sqrt{4} = 2$.\nThen $\\nabla f = 0$.\nSo the answer is 2.",
    "$$\nE = mc^2\n$$",
    "\\begin{matrix}\n1 & 2 \\\\\n3 & 4\n\\end{matrix}",
    "It costs $5.\nThe other costs $10.",
    "It costs $5.\nnot $10.",
    r"C:\new\table.txt",
    r"C:\Users\me\notes.txt",
    r"\\server\share\new",
    r"\d+\b|[^\n]*",
    r"^\s*$",
    r'print("a\nb\t")',
    '{"a": "x\\ny", "b": [1, 2]}',
    '{\n  "a": 1,\n  "list": [\n    1,\n    2\n  ]\n}',
    "<p>\n\t<b>bold</b>\n</p>",
    "https://example.com/a/b?c=d",
    "It's Anna's dog.",
    "caf\u00e9 \u6f22\u5b57 \U0001f600",
    "100 %\nof it",
    "Names:\nNina\nTom\nRob",
    "The letters n, t\nand r",
]


@pytest.mark.parametrize("text", HONEST)
@pytest.mark.parametrize("plain", [True, False])
def test_what_is_escaped_as_json_wants_it_comes_through(text, plain):
    assert read(json.dumps(text, ensure_ascii=plain)[1:-1]) == (text, "")


def test_a_reply_in_python_s_or_javascript_s_way_keeps_its_texts_too():
    for text in HONEST:
        body = {"pairs": [{"index": 1, "question": "Q?", "answer": text, "reasoning": ""}]}
        for told in (str(body), json.dumps(body).replace("}]}", "},],}")):
            answers, fault = WRITE.parse([UNIT], told)
            assert fault == ""
            assert answers[UNIT.key].value["answer"] == text, told


# Backslashes that are not doubled, where they have one reading

ONE_READING = [
    r"$\frac{1}{2}\times\theta$",
    r"$\sqrt{2}$",
    r"\frac{1}{2}",
    r"\theta",
    r"30 \times 40",
    r"$\nabla \cdot \vec{E} = \rho$",
    r"$x \ne y$, $\nu = 3$ and $f: A \to B$",
    r"$\underline{x}$, $\beta$, $\rho$, $\bar{x}$, $\forall x$, $\notin$, $\neq$, $\text{if}$",
    r"\begin{cases} x \end{cases}",
    r"\(\alpha + \beta\)",
    r"\[ \tan\phi \]",
    r"\alpha \to \beta",
    r"\d+\b",
    r"\bword\b",
    r"^\w+\s*$",
    r"(\w+)@(\w+)\.com",
    r"C:\Windows\System32",
    r"C:\Users\me",
    r"D:\fotos\bilder",
    r"50\% of it",
    r"snake\_case",
    "First $\\sqrt{4} = 2$.\nThen $\\pi r^2$.\nSo it is 2.",
]


@pytest.mark.parametrize("text", ONE_READING)
def test_a_backslash_that_was_not_doubled_is_kept(text):
    assert read(naive(text)) == (text, "")


# … and where they have two, or the escape means something else elsewhere

TWO_READINGS = [
    r"x \ne y",
    r"$\\frac{1}{2}\times 3$",
    r"C:\new\table",
    r"C:\temp",
    r"\\\\nas\\share\d",
    r"\\nas\new",
    r"C:\\docs\new",
    r"C:\docs\new",
    r"[^\n]+",
    r"\n{2,}",
    r"^\t*$",
    r"\d+\n",
    r"print(\"a\nb\")",
    r"print('a\tb')",
    r"'\n'.join(lines)",
    r"{\"a\": \"x\ny\"}",
    r"^\/home\/$",
    r"src\test\names.txt",
    r"`\n` ends a line",
    r"a\n\nb\necho -e 'a\tb'",
    r"C:\readme\table",
    r"a\nb\nc\ne{x}",
    r"'It\'s'",
    r"\x41",
    r"\u{1F600}",
    r"\U0001F600",
    r"page\fNext",
    r"one\rtwo",
    r"\u000crac{1}{2}",
    "\x0crac{1}{2}",
    r"$x\nfoo$",
    r"$$\nu = 3$$",
]


@pytest.mark.parametrize("literal", TWO_READINGS)
def test_a_text_with_two_readings_is_asked_for_again(literal):
    answer, fault = read(literal)
    assert answer is None
    assert "can be read in two ways" in fault and "twice" in fault
    assert "```" not in fault and len(fault) < 400, "it goes back to the model"


def test_what_cannot_be_meant_otherwise_is_read():
    assert read(r"It\'s Anna\'s dog") == ("It's Anna's dog", "")
    assert read(r"https:\/\/example.com\/a") == ("https://example.com/a", "")
    assert read("a\nb") == ("a\nb", ""), "a line break as it is"
    assert read(r"caf\u00e9 \ud83d\ude00") == ("caf\u00e9 \U0001f600", "")
    assert read(r"one\r\ntwo") == ("one\ntwo", "")
    assert read(r"It\'s", "'")[0] == "It's"
    assert read(r"$\frac{1}{2}$", "'") == (r"$\frac{1}{2}$", "")
    assert read(r'say "hi" \u00e9', "'") == ('say "hi" \u00e9', "")


def test_one_entry_with_two_readings_costs_no_other():
    units = [WRITE.unit("ab" * 32, {"task_type": f"a~{n}"}) for n in range(2)]
    entries = [
        '{"index": 1, "question": "Q?", "answer": "C:\\temp", "reasoning": ""}',
        '{"index": 2, "question": "Q?", "answer": "\\sqrt{2}", "reasoning": ""}',
    ]
    answers, fault = WRITE.parse(units, f'{{"pairs": [{", ".join(entries)}]}}')
    assert [unit.key in answers for unit in units] == [False, True]
    assert fault.startswith("index 1: `answer`: ")


def test_a_reason_is_kept_as_it_is_written_where_it_has_two_readings():
    vote = vote_template("Vote.", MODEL, True)
    unit = vote.unit("ab" * 32, {"task_type": "a~b"})
    answers, fault = vote.parse([unit], r'{"votes": [{"index": 1, "vote": 0, "reason": "it is x \ne y"}]}')
    assert fault == ""
    assert answers[unit.key].value == {"vote": 0, "reason": r"it is x \ne y"}


def test_the_words_that_could_be_text_are_commands_after_a_line_break_or_a_tab():
    assert COULD_BE_TEXT <= COMMANDS
    assert all(word[0] in "nt" for word in COULD_BE_TEXT)


# Any text of these kinds

# A command ends where its letters do.
COMMAND = st.builds(
    lambda word, end: f"\\{word}{end}",
    st.sampled_from(sorted(COMMANDS)),
    st.sampled_from(["{x}", " ", "_1", "^2 ", "."]),
)
NAME = st.from_regex(r"[a-z][a-z_]{2}[a-z0-9_]{0,5}", fullmatch=True)
PATH = st.builds(
    lambda drive, parts, end: f"{drive}:\\{chr(92).join(parts)}{end}",
    st.sampled_from("CDE"),
    st.lists(NAME, min_size=1, max_size=4),
    st.sampled_from(["", ".txt", ".exe", "\\"]),
)
EXPRESSION = st.lists(
    st.sampled_from(
        [r"\d+", r"\b", r"\w*", r"[^\n]*", r"\s+", r"(\t|\n)+$", r"[a-z]", r"^\n", r"\.", "|", r"\n{2}", "(a|b)"]
    ),
    min_size=1,
    max_size=4,
).map("".join)
FORMULA = st.lists(COMMAND | st.sampled_from(["{x}", " = ", " + ", "x", "3", " "]), min_size=1, max_size=6).map(
    lambda parts: f"${''.join(parts).strip() or 'x'}$ "
)
CODE = st.sampled_from(
    [
        r'print("a\nb")',
        r"s.split('\t')",
        r'x = "\n"',
        r"'\n'.join(x)",
        r'printf("%d\n", x)',
        r"echo -e 'a\tb'",
        r"r'\d+'",
    ]
)
JSON = st.dictionaries(NAME, st.text('ab\n\t\\"/ ', max_size=5), max_size=2).map(json.dumps)
PROSE = st.sampled_from(["Look: ", "It is ", ".\n", "\n\n", " and ", "\n- ", "The ", ", so ", "\nThen ", "\t5 "])
PIECES = [FORMULA, COMMAND, PATH, EXPRESSION, CODE, JSON]
TEXT = (
    st.sampled_from(PIECES)
    .flatmap(lambda kind: st.lists(st.one_of(kind, PROSE), min_size=1, max_size=5).map("".join))
    .filter(lambda text: clean(text))
)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(TEXT)
def test_any_text_comes_through_unchanged_or_not_at_all(text):
    assert read(json.dumps(text)[1:-1])[0] in (clean(text), None)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(TEXT.filter(lambda text: "\\\\" not in text))
def test_any_text_whose_backslashes_are_not_doubled_comes_through_unchanged_or_not_at_all(text):
    assert read(naive(text))[0] in (clean(text), None)
