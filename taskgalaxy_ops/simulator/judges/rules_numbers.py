"""Rules on printed numbers and what can be reckoned from them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskgalaxy_ops.simulator.judges import finding, layout, words
from taskgalaxy_ops.simulator.judges.finding import Found, SenselessError, UnsureError, short
from taskgalaxy_ops.simulator.judges.rules_texts import figures_found
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]

_SUMMARY = re.compile(r"total|sum\b|tax|vat|cash|change|card|paid|due|balance|net|gross|tendered|amount", re.IGNORECASE)
_OPERATORS = str.maketrans(
    {"×": "*", "x": "*", "X": "*", "·": "*", "÷": "/", ":": "/", "−": "-", "–": "-", "—": "-", ",": ""}
)


def _numbers(view: View, _: Params) -> Found:
    layout.need_text(view)
    seen = [m for line in view.lines for m in re.findall(r"\d+(?:[.,:]\d+)*", line.text)]
    return figures_found("the numbers", seen, view)


def _largest(view: View, _: Params) -> Found:
    texts = [*(piece.text for piece in view.pieces), *layout.printed_words(view)]
    values = [value for text in texts for value in words.numbers(text) if value < 1e8]  # longer ones ran together
    if not values:
        raise SenselessError("I read no number")
    top = max(values)
    return Found(
        f"the largest number is {top:.10g}",
        lambda said: (value := words.number(said)) is not None and words.close(value, top),
        (top,),
    )


def items(view: View) -> list[layout.Priced]:
    """The priced lines that come before a total."""
    found = []
    for entry in layout.priced(view):
        if _SUMMARY.search(entry.name):
            break
        found.append(entry)
    return found


def _sum_of_items(view: View, _: Params) -> Found:
    listed = items(view)
    if len(listed) < 2:
        raise SenselessError("I read no list of prices")
    total = sum(entry.amount for entry in listed)
    named = [entry.amount for entry in layout.priced(view) if re.search(r"total", entry.name, re.IGNORECASE)]
    if any(words.close(total, value) for value in named):
        return finding.number("the sum of the items", total)
    return finding.number("the sum of the items", total, *named[:1])


def _present(view: View, figure: str) -> float:
    value = words.number(figure)
    if value is None:
        raise SenselessError(f"'{short(figure)}' is no number")
    if words.digits(figure) not in words.digits(" ".join(p.text for p in view.pieces)):
        raise SenselessError(f"I read no {short(figure)}")
    return value


def _difference(view: View, params: Params) -> Found:
    first, second = _present(view, params["first"]), _present(view, params["second"])
    return finding.number("the difference", abs(first - second))


def _equation(view: View, params: Params) -> Found:
    expression = params["expression"].translate(_OPERATORS)
    if not words.within(params["expression"], layout.everything(view), 0.9):
        raise SenselessError(f"I read no {short(params['expression'])}")
    return finding.number("the result", value_of(expression), tolerance=0.006)


def value_of(expression: str) -> float:
    """The value of a sum of numbers with + - * / and brackets. Raises SenselessError for anything else."""
    try:
        return _reckon(ast.parse(expression.strip().rstrip("=").strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, ValueError) as error:
        raise SenselessError(f"'{short(expression)}' cannot be reckoned") from error


def _reckon(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_reckon(operand)
        case ast.BinOp(left=left, op=operator, right=right):
            one, other = _reckon(left), _reckon(right)
            match operator:
                case ast.Add():
                    return one + other
                case ast.Sub():
                    return one - other
                case ast.Mult():
                    return one * other
                case ast.Div():
                    return one / other
    raise ValueError("not a sum")


def price_of(view: View, name: str) -> float:
    """The price on the line of an item. Raises SenselessError if there is no such line, UnsureError if no price."""
    listed = layout.priced(view)
    index, score = words.best(name, [entry.name for entry in listed])
    if score >= 0.75:
        return listed[index].amount
    for entry in listed:  # the name may have a count before it, or dots after it
        if words.within(name, entry.name):
            return entry.amount
    place = layout.located(view, name)
    level = [p for p in view.pieces if abs(p.y - place.y) < 0.7 * place.height and p.left > place.x]
    values = [v for p in level if (v := layout.amount(p.text)) is not None]
    if not values:
        raise UnsureError(f"I read no price for '{short(name, 30)}'")
    return values[-1]


def _cheaper(view: View, params: Params) -> Found:
    first, second = price_of(view, params["first"]), price_of(view, params["second"])
    if first == second:
        raise SenselessError("both cost the same")
    name, other = (params["first"], params["second"]) if first < second else (params["second"], params["first"])
    return Found(
        f"{first:.2f} against {second:.2f}",
        lambda said: words.likeness(said, name) >= 0.85 and words.likeness(said, name) > words.likeness(said, other),
    )


def total(view: View) -> list[float]:
    """Amounts beside the word total, the likeliest first. Raises SenselessError if there is none."""
    found = []
    for line in view.lines:
        if re.search(r"(?<!sub)(?<!sub )(?<!sub-)t[o0]tal|am[o0]unt due|to pay", line.text, re.IGNORECASE):
            value = layout.amount(line.text)
            if value is not None:
                found.append(value)
    if not found:
        raise SenselessError("I read no total")
    return found[::-1]


def _change(view: View, params: Params) -> Found:
    paid = words.number(re.sub(r"[^\d.,]", " ", params["paid"]))
    if paid is None:
        raise SenselessError(f"'{short(params['paid'])}' is no amount")
    return finding.number("the change", *(paid - value for value in total(view)[:1]))


def _parity(view: View, params: Params) -> Found:
    value = _present(view, params["number"])
    if value != int(value):
        raise SenselessError(f"{params['number']} is no whole number")
    return finding.choice("by its last digit", "even" if int(value) % 2 == 0 else "odd")


RULES: dict[str, Rule] = {
    "number reading": _numbers,
    "largest number finding": _largest,
    "sum of amounts": _sum_of_items,
    "difference of numbers": _difference,
    "printed equation solving": _equation,
    "price comparison": _cheaper,
    "change calculation": _change,
    "odd or even number identification": _parity,
}
