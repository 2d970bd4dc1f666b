"""Reads the texts in a reply's JSON as the model meant them: a backslash that was not doubled is kept, or told.

JSON wants a backslash doubled. Models forget it in LaTeX, paths, regular expressions and code: ``"\\frac"`` then reads
as a form feed and "rac", ``"\\sqrt"`` is no JSON, and tolerant parsers drop its backslash. So every text is looked at
as it is written, before it is decoded. An escape that JSON does not know, and one for a character that nobody means
(backspace, form feed), is a backslash of the text. A line break or a tab before letters is what it says, unless what is
around it speaks for a backslash: then the text has one reading, or two. A text with two readings is ``AMBIGUOUS``: it
cannot be used, and the model is told what to write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from taskgalaxy_ops.models.latex import COMMANDS, COULD_BE_TEXT, PUNCTUATION

AMBIGUOUS = "\uffff"  # begins a text with two readings, followed by what is wrong; Unicode gives it to no character
_LONGEST = 8_000  # characters; no field of ours is as long
_NEAR = 300  # characters before an escape that are looked at
_STRING = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)("|\\?\Z)', re.DOTALL)
_ANY_STRING = re.compile(
    rf"""{_STRING.pattern}|'([^'\\]*(?:\\.[^'\\]*)*)('|\\?\Z)|/\*.*?(?:\*/|\Z)|//[^\n]*|\#[^\n]*""", re.DOTALL
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+")
_RAW = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CONTROL = re.compile(r"[\x00-\x1f]")
_ADVICE = (
    "in JSON a backslash is written twice (\\\\); \\n is a line break, \\t a tab: "
    "put a blank after one that is meant where letters follow"
)
# Of other languages: escapes for characters that JSON writes as \uXXXX.
_FOREIGN = {"u": r"\{|[0-9]|[0-9a-fA-F]{2}", "x": r"[0-9a-fA-F]{2}", "U": r"[0-9a-fA-F]{8}", "N": r"\{"}

# Formulas; the groups: those of a line of their own. Dollar signs as Pandoc reads them: the inner side of each touches
# no blank, and no digit follows the second.
_MATH = re.compile(
    r"(?<![\\$])(\$\$).+?\$\$|(?<![\\$])\$(?![\s$])[^$]+?(?<![\s\\$])\$(?![\d$])"
    r"|(?<!\\)\\\(.+?(?<!\\)\\\)|(?<!\\)(\\\[).+?(?<!\\)\\\]",
    re.DOTALL,
)
# A quoted text that can only be code: an argument, a value, an operand; a class of characters. The quotation marks are
# escaped, or single.
_CODE = re.compile(
    r"(?:[A-Za-z_]\w*\(|[=+%\[]\s?|\\\"\s?:\s?|(?:\b|(?<=\\[nt]))(?:return|echo|print|puts|printf)\s(?:-\w+\s)*|(?<=[(\s=,])[rbfRBF])"
    r"(\\\"|').*?\1"
    r"|(?<![\w.!?,;:)\]\"'’])(\\\"|')(?:\\[ntr])+\2"
    r"|(\\\"|')[^'\"]*?\3(?:\.\w+\(|\s?[+%]\s)"
    r"|\[\^?(?:\\[ntr]|[ ,;|-])+\]"
    r"|(?<!`)`(?!`)[^`]+`(?!`)"  # Markdown
    r"|(?<![\w\\.])(?=[^\s.]*\\t)(?=[^\s.]*\\n)[\w-]+(?:\\[nt][\w-]+){2,}\.\w{1,4}\b",  # a path without a drive
    re.DOTALL,
)
_QUANTIFIED = re.compile(r"[*+?](?:[$)\]\\]|\Z)|\{\d+,?\d*\}|\|(?:\\[nr]|\))")
_REGULAR = re.compile(r"(?:\[\^(?:\\?[^\]\s])*|\^|\\[nr]\|)\Z")
_DRIVE = re.compile(r"(?:\A|[^A-Za-z0-9])[A-Za-z]:(?:\\\S*)?\Z")
_ROOT = re.compile(r"%\w+%\Z|(?:\A|[\s(])(?:\.{1,2}|~)\Z|(?:\A|[\s(\"'])\\\\(\w+)\Z")
_CONTRACTION = re.compile(r"(?<=[A-Za-z])\\'(?=(?:s|t|re|ve|ll|d|m)\b)|(?<=s)\\'(?=\s)")
_NOT_PROSE = re.compile(r"[\\\"'`=;{}()\[\]<>]")


class AmbiguousError(ValueError):
    """A text with two readings. The message tells the model what to write."""


def strict(text: str, *, lenient: bool = False) -> str:
    """The text with all its string literals as strict JSON, each decoding to what was meant, or to AMBIGUOUS.

    lenient: texts in single quotes are literals, too, and comments are left out. A literal that does not end is left as
    it is.
    """

    def literal(found: re.Match[str]) -> str:
        quote, raw, end = (
            ('"', found[1], found[2]) if found[1] is not None or not lenient else ("'", found[3], found[4])
        )
        if raw is None:
            return " "  # a comment
        if end != quote:
            return found[0]
        try:
            made = f'"{meant(raw, quote)}"'
        except AmbiguousError as error:
            return json.dumps(f"{AMBIGUOUS}{error}{AMBIGUOUS}{raw}")
        # Python would read two surrogates where JSON has one character.
        return json.dumps(json.loads(made), ensure_ascii=False) if lenient else made

    return (_ANY_STRING if lenient else _STRING).sub(literal, text)


def fault_of(text: str) -> str:
    """What is wrong with an AMBIGUOUS text; "" for any other."""
    return text[1:].partition(AMBIGUOUS)[0] if text.startswith(AMBIGUOUS) else ""


def as_written(text: str) -> str:
    """An AMBIGUOUS text as it stands in the reply, undecoded; any other as it is."""
    return text[1:].partition(AMBIGUOUS)[2] if text.startswith(AMBIGUOUS) else text


def meant(raw: str, quote: str = '"') -> str:
    """The inside of a string literal as strict JSON in double quotes. Raises AmbiguousError.

    quote: the literal's quotation mark. Characters that JSON wants escaped, such as line breaks, may stand in it.
    """
    if found := re.search(r"[\b\f](?=[A-Za-z])", raw):
        raise _ambiguous(raw, found.start(), "a control character")
    if "\\" not in raw:
        return _quoted(raw)
    if len(raw) > _LONGEST:
        raise AmbiguousError(f"a text with backslashes is longer than {_LONGEST} characters")
    literal = _Literal(raw, quote)
    parts, at = [], 0
    for escape in literal.escapes:
        parts += [_quoted(raw[at : escape.start]), literal.read(escape)]
        at = escape.end
    return "".join([*parts, _quoted(raw[at:])])


def _quoted(text: str) -> str:
    text = text.replace('"', '\\"')
    return _CONTROL.sub(lambda found: _RAW.get(found[0], f"\\u{ord(found[0]):04x}"), text)


def _ambiguous(raw: str, at: int, what: str) -> AmbiguousError:
    near = " ".join(raw[max(at - 12, 0) : at + 18].split()).replace("`", "'").replace("<", "‹")  # it opens nothing
    return AmbiguousError(f"`…{near}…` can be read in two ways ({what}): {_ADVICE}")


@dataclass(frozen=True, slots=True)
class _Escape:
    start: int
    end: int
    sign: str  # what follows the backslash; "u00e9" for a whole Unicode escape
    word: str  # the letters from there on

    @property
    def command(self) -> bool:
        """Whether LaTeX knows it."""
        return self.word in COMMANDS if self.word else self.sign in PUNCTUATION


@dataclass(frozen=True)
class _Literal:
    """A string literal with backslashes, and what its escapes say together."""

    raw: str
    quote: str

    @cached_property
    def escapes(self) -> list[_Escape]:
        return list(self._escapes())

    def _escapes(self) -> Iterator[_Escape]:
        for found in _ESCAPE.finditer(self.raw):
            word = _WORD.match(self.raw, found.start(1))
            yield _Escape(found.start(), found.end(), found[1], word[0] if word else "")

    def read(self, escape: _Escape) -> str:
        """An escape as strict JSON. Raises AmbiguousError."""
        sign = escape.sign
        if len(sign) > 1:
            if sign.lower() in {"u0008", "u000c"} and self.raw[escape.end : escape.end + 1].isalpha():
                raise self._two(escape, "a control character")
            return f"\\{sign}"
        if sign in {"\\", '"', self.quote}:
            return "'" if sign == "'" else f"\\{sign}"
        if sign == "'":
            return self._apostrophe(escape)
        if sign == "/":
            return self._slash(escape)
        if self._kept(escape):
            if self._doubles:
                raise self._two(escape, "some backslashes are doubled, this one is not")
            return f"\\\\{sign}"
        if sign == "r":  # of a line's end; alone it is nothing that a text holds
            if self.raw.startswith("\\n", escape.end):
                return ""
            raise self._two(escape, "a carriage return")
        if why := self._doubt(escape):
            raise self._two(escape, why)
        return f"\\{sign}"

    def _two(self, escape: _Escape, what: str) -> AmbiguousError:
        return _ambiguous(self.raw, escape.start, what)

    @cached_property
    def _doubles(self) -> bool:
        """Whether it has a doubled backslash: the model knew how to write one."""
        return any(escape.sign == "\\" for escape in self.escapes)

    @cached_property
    def _other(self) -> bool:
        """Whether backslashes that are certainly the text's are not of LaTeX, but of a path, an expression, code."""
        return any(self._certain(escape) and not escape.command for escape in self.escapes)

    @cached_property
    def _latex(self) -> bool:
        """Whether a single backslash begins a command of LaTeX for certain."""
        return any(escape.command and (self._certain(escape) or self._strong(escape)) for escape in self.escapes)

    def _certain(self, escape: _Escape) -> bool:
        """Whether the backslash is one of the text, whatever stands around it. Raises AmbiguousError."""
        sign, rest = escape.sign, self.raw[escape.end :]
        if sign in {"\\", '"', "'", "/", "n", "t", "r"} or len(sign) > 1:
            return False
        if sign in _FOREIGN and re.match(_FOREIGN[sign], rest) and not escape.command:
            raise self._two(escape, "an escape that is not JSON's")
        if sign == "\n" or (sign == "f" and not rest[:1].islower()):
            raise self._two(escape, "a form feed" if sign == "f" else "a broken line")
        return True

    def _strong(self, escape: _Escape) -> bool:
        """Whether a line break, tab or return is a command of LaTeX for certain, since its rest is no text."""
        if escape.sign not in {"n", "t", "r"} or not escape.command:
            return False
        return escape.sign == "r" or escape.word not in COULD_BE_TEXT or self._argument(escape)

    def _argument(self, escape: _Escape) -> bool:
        after = escape.start + 1 + len(escape.word)
        return escape.word in {"text", "tag", "num", "norm"} and self.raw.startswith("{", after)

    def _kept(self, escape: _Escape) -> bool:
        """Whether the backslash is one of the text. Raises AmbiguousError."""
        if self._certain(escape) or self._strong(escape):
            return True
        if escape.sign == "r" and not self.raw.startswith("\\n", escape.end):
            return self._other or bool(_DRIVE.search(self._spaced[max(escape.start - _NEAR, 0) : escape.start]))
        return escape.sign in {"n", "t"} and escape.command and self._in_formula(escape)

    def _in_formula(self, escape: _Escape) -> bool:
        """Whether a command whose rest could be text stands in a formula."""
        before = self.raw[max(escape.start - 1, 0) : escape.start]
        if (math := self._math(escape)) is not None:
            return math == "inline" or before == " "
        # A text that is one bare formula: blanks, braces and operators stand before its commands.
        bare = self._latex and "$" not in self.raw and "\\(" not in self.raw and "\\[" not in self.raw
        return bare and before in " }=(+-0123456789"  # "": it begins the text

    def _math(self, escape: _Escape) -> str | None:
        """The kind of formula that an escape stands in, "inline" or "display"; None: in none."""
        inside = (found for found in self._formulas if found.start() < escape.start < found.end())
        return next(("display" if found[1] or found[2] else "inline" for found in inside), None)

    @cached_property
    def _spaced(self) -> str:
        """The text with blanks for its line breaks and tabs, in whatever way they are meant."""
        return re.sub(r"(\\\\)|\\[nt]", lambda found: found[1] or "  ", self.raw)

    @cached_property
    def _formulas(self) -> list[re.Match[str]]:
        return list(_MATH.finditer(self.raw))

    @cached_property
    def _code(self) -> list[tuple[int, int]]:
        return [found.span() for found in _CODE.finditer(self.raw)]

    def _doubt(self, escape: _Escape) -> str:
        """Why a line break or tab may be a backslash of the text; "" if nothing speaks for it."""
        near = slice(max(escape.start - _NEAR, 0), escape.start)
        before, rest = self._spaced[near], self.raw[escape.end :]
        letter = rest[:1].isascii() and (rest[:1].islower() or rest[:1] == "_")
        if self._other:
            return "other backslashes here are single"
        if escape.command and not self._listed(escape):
            return f"\\{escape.word} of LaTeX"
        if rest[:1].isalpha() and self._math(escape) == "inline":
            return "within a formula"
        if letter and _DRIVE.search(before):
            return "a path"
        if letter and (found := _ROOT.search(before)) and found[1] not in COMMANDS:
            return "a path"
        if _QUANTIFIED.match(rest) or _REGULAR.search(self.raw[near]):
            return "a regular expression"
        if any(start < escape.start < end for start, end in self._code):
            return "within a text of code"
        return ""

    def _listed(self, escape: _Escape) -> bool:
        """Whether a line break before one letter is one of several: a list of letters."""
        alone = len(escape.word) == 2 and re.match(r"\\n|\Z", self.raw[escape.start + 3 :])
        blank = self.raw[max(escape.start - 1, 0) : escape.start].isspace()
        if escape.sign != "n" or not alone or "$" in self.raw or blank:
            return False
        return sum(each.sign == "n" and not each.command for each in self.escapes) >= 2

    def _apostrophe(self, escape: _Escape) -> str:
        """``\\'`` in double quotes: many write it for an apostrophe; in code the backslash may be meant."""
        prose = _CONTRACTION.sub("", self.raw).replace("\\n", "")
        if not _CONTRACTION.match(self.raw, escape.start) or _NOT_PROSE.search(prose):
            raise _ambiguous(self.raw, escape.start, "in JSON an apostrophe has no backslash")
        return "'"

    def _slash(self, escape: _Escape) -> str:
        """``\\/`` is a slash in JSON, but in a regular expression the backslash is meant."""
        if re.search(r"[\^$*+?|()\[\]{}]", self.raw) or any(map(self._certain, self.escapes)):
            raise self._two(escape, "in JSON a slash has no backslash")
        return "/"
