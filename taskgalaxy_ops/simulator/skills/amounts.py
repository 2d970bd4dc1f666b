"""Skills for receipts, invoices and menus, and for reckoning with the amounts printed on them."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import pairwise

from taskgalaxy_ops.simulator import structure
from taskgalaxy_ops.simulator.perception import SURE, Scene
from taskgalaxy_ops.simulator.skills.base import Asked, Found, asked, many, need, one, quoted, skill
from taskgalaxy_ops.simulator.skills.numbers import DATE, changed
from taskgalaxy_ops.simulator.structure import Item

_RECEIPT = re.compile(r"(?i)\b(?:receipt|thank you|cash|card|change|see you|till)\b")
_TOTAL = re.compile(r"(?i)^(?:grand )?total(?: due| to pay)?$")
_NOTES = (10, 20, 50, 100, 200)


def is_invoice(scene: Scene) -> bool:
    """Whether the word invoice stands on the page."""
    return bool(re.search(r"(?i)\binvoice\b", scene.text))


def _receipt(scene: Scene) -> tuple[list[Item], Item]:
    """The things bought, and the total. Raises NoFit if it is no receipt."""
    need(scene.segments, "no text can be seen in the image")
    need(not is_invoice(scene) and _RECEIPT.search(scene.text), "the image is not a receipt")
    found = structure.items(scene)
    things = [item for item in found if not item.sums]
    totals = [item for item in found if _TOTAL.match(item.name)]
    need(len(totals) == 1 and len(things) >= 2, "no receipt with items and one total")
    total = totals[0]
    above = [item for item in things if item.row.bottom <= total.row.top + 2]
    need(len(above) == len(things), "amounts stand below the total")
    return above, total


def _complete(scene: Scene) -> tuple[list[Item], Item]:
    """As _receipt, if the items add up to the total, so that none was missed."""
    things, total = _receipt(scene)
    need(sum(item.amount for item in things) == total.amount, "the items do not add up to the total")
    return things, total


def _sign(printed: str) -> str:
    return printed.rstrip("0123456789.,")


def _near(amount: Decimal, like: str) -> list[str]:
    """Other amounts of the same form."""
    sign = _sign(like)
    return [f"{sign}{amount + Decimal(step):.2f}" for step in ("0.90", "1.00", "10.00") if amount + Decimal(step) > 0]


def _total(scene: Scene) -> Item:
    """A receipt's total, or the amount due of an invoice."""
    return _receipt(scene)[1]


@skill("documents~receipts & invoices~receipt total reading")
def receipt_total(scene: Scene) -> Found:
    things, total = _receipt(scene)
    why = f"The receipt lists {len(things)} items. Below them the line {quoted(total.name)} gives {total.printed}."
    return one("a receipt with a total", total.printed, [*_near(total.amount, total.printed), things[-1].printed], why)


@skill("documents~receipts & invoices~receipt item price lookup")
def item_price(scene: Scene) -> Found:
    things, _ = _receipt(scene)
    names = [item.name for item in things]
    usable = [item for item in things if item.quantity == 1 and names.count(item.name) == 1]
    need(usable, "no item that was bought once")

    def ask(item: Item) -> Asked:
        why = f"On the receipt there is a line for {quoted(item.name)}. At its end stands the amount {item.printed}."
        others = [other.printed for other in things if other is not item]
        return asked(item.printed, others, why, item=item.name)

    return many("a receipt with items and prices", [ask(item) for item in usable])


@skill("documents~receipts & invoices~receipt item counting")
def item_count(scene: Scene) -> Found:
    things, total = _complete(scene)
    count = len(things)
    why = (
        f"The items reach from {quoted(things[0].name)} to {quoted(things[-1].name)}, a line each. That makes {count}; "
        f"their amounts add up to the total of {total.printed}."
    )
    return one("a receipt with items", str(count), (str(count + 1), str(count + 2), str(count - 1)), why)


@skill("documents~receipts & invoices~receipt date reading")
def receipt_date(scene: Scene) -> Found:
    _receipt(scene)
    found = [(m, s) for s in scene.segments for m in DATE.findall(s.text)]
    need(len(found) == 1 and found[0][1].sure >= SURE, "the receipt shows no single clear date")
    date = found[0][0]
    why = f"It is a receipt with items and a total. The only date printed on it is {date}."
    return one("a receipt with a date", date, (changed(date, 1), changed(date, 4)), why)


@skill("documents~receipts & invoices~shop of receipt identification")
def shop(scene: Scene) -> Found:
    _receipt(scene)
    top = scene.rows[0]
    others = [row for row in scene.rows[1:6] if row.size < 0.9 * top.size and not any(c.isdigit() for c in row.text)]
    need(top.sure >= SURE and not any(c.isdigit() for c in top.text), "the receipt has no clear header")
    need(
        top.size > 1.1 * scene.rows[1].size and len(top.text) > 4, "the top line does not stand out as the shop's name"
    )
    words = top.text.split()
    wrong = [f"{word} {' '.join(words[1:])}".strip() for word in ("Greenfield", "Northstar", "Juniper")]
    why = f"The top line of the receipt is set large and reads {quoted(top.text)}. That is the name of the shop."
    return one("a receipt with the shop's name on top", top.text, wrong + [row.text for row in others][:1], why)


@skill("documents~receipts & invoices~tax amount reading")
def tax(scene: Scene) -> Found:
    need(re.search(r"(?i)receipt|invoice|total", scene.text), "neither a receipt nor an invoice")
    found = [i for i in structure.items(scene) if re.search(r"(?i)\b(?:tax|vat)\b", i.name)]
    need(len(found) == 1, "no single line for tax")
    line = found[0]
    why = f"The line {quoted(line.name)} shows the tax. The amount at its end is {line.printed}."
    return one("a line for tax", line.printed, _near(line.amount, line.printed), why)


def _captioned(scene: Scene, caption: str, form: str) -> tuple[str, str]:
    """Caption and value of the only caption that matches, the value beside it in the given form."""
    found = []
    for segment in scene.segments:
        if re.match(caption, segment.text):
            rest = re.sub(caption, "", segment.text).strip(" :.")
            right = structure.beside(scene, segment)
            text = rest or (right[0].text if right else "")
            sure = segment.sure >= SURE and (bool(rest) or (bool(right) and right[0].sure >= SURE))
            if sure and re.fullmatch(form, text):
                found.append((segment.text.strip(" :"), text))
    need(len(found) == 1, "no value stands clearly beside its caption")
    return found[0]


@skill("documents~receipts & invoices~invoice number reading")
def invoice_number(scene: Scene) -> Found:
    need(is_invoice(scene), "the image is not an invoice")
    caption, text = _captioned(scene, r"(?i)^invoice ?(?:no|number|nr|#)\.?:?", r"[\w/-]*\d[\w/-]*")
    why = f"On the invoice the caption {quoted(caption)} can be found. Beside it stands {text}."
    return one("an invoice with its number", text, (changed(text, 2), changed(text, 5)), why)


@skill("documents~receipts & invoices~invoice due date reading")
def due_date(scene: Scene) -> Found:
    need(is_invoice(scene), "the image is not an invoice")
    caption, text = _captioned(scene, r"(?i)^(?:due(?: date)?|payable by|pay by|payment due):?", DATE.pattern)
    others = [m for s in scene.segments for m in DATE.findall(s.text)]
    why = f"The invoice names a due date with the caption {quoted(caption)}. Beside it stands {text}."
    return one("an invoice with a due date", text, [*others, changed(text, 1)], why)


def _menu(scene: Scene) -> list[Item]:
    """The dishes and drinks. Raises NoFit if it is no menu."""
    found = structure.items(scene)
    need(len(found) >= 4, "no list of names with prices")
    need(not any(item.sums for item in found) and not is_invoice(scene), "a receipt or bill rather than a menu")
    need(not re.search(r"(?i)receipt|qty", scene.text), "a receipt or bill rather than a menu")
    need(all(item.quantity == 1 for item in found), "a receipt or bill rather than a menu")
    ends = [row for row in scene.rows if re.search(r"\d\.\d\d$", row.text)]
    need(len(ends) == len(found), "a price cannot be read with certainty")
    return found


@skill("documents~schedules & menus~menu price lookup")
def menu_price(scene: Scene) -> Found:
    dishes = _menu(scene)
    names = [dish.name for dish in dishes]

    def ask(dish: Item) -> Asked:
        why = f"The menu has a line for {quoted(dish.name)}. The price at its end is {dish.printed}."
        return asked(dish.printed, [d.printed for d in dishes], why, dish=dish.name)

    return many("a menu with prices", [ask(dish) for dish in dishes if names.count(dish.name) == 1])


@skill("documents~schedules & menus~cheapest menu item finding")
def cheapest(scene: Scene) -> Found:
    first, *rest = sorted(_menu(scene), key=lambda dish: dish.amount)
    need(first.amount < rest[0].amount, "two dishes cost the same")
    why = f"Comparing all prices on the menu, {first.printed} is the lowest. It belongs to {quoted(first.name)}."
    return one("a menu with prices", first.name, [dish.name for dish in rest], why)


@skill("mathematics~arithmetic on images~price comparison")
def price_comparison(scene: Scene) -> Found:
    found = [item for item in structure.items(scene) if not item.sums and item.quantity == 1]
    need(len(found) >= 2, "no two things with printed prices")
    names = [item.name for item in found]
    usable = [item for item in found if names.count(item.name) == 1]

    def ask(a: Item, b: Item) -> Asked:
        low, high = sorted((a, b), key=lambda item: item.amount)
        why = (
            f"{quoted(a.name)} costs {a.printed}, {quoted(b.name)} costs {b.printed}. So {quoted(low.name)} is cheaper."
        )
        return asked(low.name, (high.name,), why, first=a.name, second=b.name)

    return many("things with printed prices", [ask(a, b) for a, b in pairwise(usable) if a.amount != b.amount])


@skill("mathematics~arithmetic on images~sum of amounts")
def sum_of_amounts(scene: Scene) -> Found:
    things, total = _complete(scene)
    need(len(things) <= 10, "too many items")
    terms = " + ".join(f"{item.amount:.2f}" for item in things)
    sign = _sign(things[0].printed)
    why = f"The items cost {terms}. Together that is {total.amount:.2f}."
    return one("a receipt with item prices", f"{sign}{total.amount:.2f}", _near(total.amount, sign), why)


@skill("mathematics~arithmetic on images~change calculation")
def change(scene: Scene) -> Found:
    total = _total(scene)
    sign = _sign(total.printed)
    notes = [note for note in _NOTES if total.amount < note < 3 * total.amount + 10]
    need(notes, "no banknote suits the total")

    def ask(note: int) -> Asked:
        due = note - total.amount
        why = f"The total on the receipt is {total.printed}. {note}.00 - {total.amount:.2f} = {due:.2f}."
        return asked(f"{sign}{due:.2f}", _near(due, sign), why, paid=f"{sign}{note}.00")

    return many("a receipt with a total", [ask(note) for note in notes[:2]])
