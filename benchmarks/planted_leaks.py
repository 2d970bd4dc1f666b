"""Planted leaks: a benchmark's pictures and questions as they turn up elsewhere, by rules whose draws hang on a seed.

Whoever tunes the thresholds of ``release.decontaminate`` uses ``TUNING`` seeds; the figures use ``MEASURED`` ones.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from taskgalaxy_ops.models.rendering import upright

TUNING = range(0, 10)
MEASURED = range(100, 110)

# --- pictures ----------------------------------------------------------------------------------------------------


def picture_leaks(raw: bytes, seed: object) -> dict[str, bytes]:
    """A picture's file in each way, by its kind."""
    image = upright(raw).convert("RGB")
    return {kind: way(image, Random(f"{kind}/{seed}")) for kind, way in _PICTURE_WAYS.items()}


def _encoded(image: Image.Image, form: str = "PNG", **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **how)
    return out.getvalue()


def _reencoded(image: Image.Image, draw: Random) -> bytes:
    """A JPEG or WebP of low to high quality."""
    return _encoded(image, draw.choice(["JPEG", "WEBP"]), quality=draw.randint(30, 90))


def _resized(image: Image.Image, draw: Random) -> bytes:
    """Two fifths to one and a half of its sides."""
    scale = draw.uniform(0.4, 1.5)
    size = (max(24, round(image.width * scale)), max(24, round(image.height * scale)))
    return _encoded(image.resize(size, draw.choice([Image.Resampling.BILINEAR, Image.Resampling.LANCZOS])))


def _recoloured(image: Image.Image, draw: Random) -> bytes:
    """Other colours and brightness: grey, or another saturation and temperature; contrast, brightness, gamma."""
    image = ImageEnhance.Color(image).enhance(draw.choice([0.0, 0.5, 1.6]))
    image = ImageEnhance.Brightness(image).enhance(draw.uniform(0.75, 1.2))
    image = ImageEnhance.Contrast(image).enhance(draw.uniform(0.75, 1.3))
    pixels = np.asarray(image, np.float64) / 255
    tint = np.array([draw.uniform(0.85, 1.0) for _ in range(3)])
    pixels = pixels ** draw.uniform(0.8, 1.25) * tint
    return _encoded(Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8)))


def _cropped(image: Image.Image, draw: Random) -> bytes:
    """Nine tenths of each side, anywhere: a fifth of the picture is gone."""
    width, height = max(1, round(0.9 * image.width)), max(1, round(0.9 * image.height))
    x, y = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    return _encoded(image.crop((x, y, x + width, y + height)))


def _mirrored(image: Image.Image, draw: Random) -> bytes:
    return _encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=draw.randint(60, 90))


def _overlaid(image: Image.Image, draw: Random) -> bytes:
    """A line of text across it, as of an agency."""
    image = image.copy()
    size = max(10, min(image.size) // 10)
    place = (draw.uniform(0.05, 0.3) * image.width, draw.uniform(0.1, 0.8) * image.height)
    ImageDraw.Draw(image).text(place, draw.choice(["SAMPLE", "stock photo", "Example 12"]), "red", font_size=size)
    return _encoded(image)


_PICTURE_WAYS: Mapping[str, Callable[[Image.Image, Random], bytes]] = {
    "re-encoded": _reencoded,
    "resized": _resized,
    "recoloured": _recoloured,
    "cropped": _cropped,
    "mirrored": _mirrored,
    "overlaid": _overlaid,
}


# --- questions ---------------------------------------------------------------------------------------------------

_THINGS = {
    "apples": "Äpfel", "bicycles": "Fahrräder", "candles": "Kerzen", "lorries": "Lastwagen", "umbrellas": "Schirme",
    "kites": "Drachen", "pigeons": "Tauben", "statues": "Statuen", "bottles": "Flaschen", "ladders": "Leitern",
    "barrels": "Fässer", "tickets": "Karten", "drawers": "Schubladen", "windows": "Fenster", "lanterns": "Laternen",
    "teapots": "Teekannen", "hammers": "Hämmer", "scarves": "Schals", "horses": "Pferde", "globes": "Globen",
    "fountains": "Brunnen", "magnets": "Magnete", "parrots": "Papageien", "benches": "Bänke", "suitcases": "Koffer",
    "clocks": "Uhren", "tents": "Zelte", "brushes": "Bürsten", "canoes": "Kanus", "helmets": "Helme", "ropes": "Seile",
    "cakes": "Kuchen", "keys": "Schlüssel", "mirrors": "Spiegel", "wheels": "Räder", "chairs": "Stühle",
    "cushions": "Kissen", "penguins": "Pinguine", "violins": "Geigen", "tractors": "Traktoren", "mushrooms": "Pilze",
}  # fmt: skip
_TRAITS = {
    "red": "rote", "wooden": "hölzerne", "striped": "gestreifte", "broken": "zerbrochene", "yellow": "gelbe",
    "metal": "metallene", "tall": "hohe", "wet": "nasse", "painted": "bemalte", "small": "kleine",
    "round": "runde", "heavy": "schwere", "golden": "goldene", "narrow": "schmale", "dusty": "staubige",
    "plastic": "aus Plastik gemachte", "green": "grüne", "torn": "zerrissene", "shiny": "glänzende", "dark": "dunkle",
    "frozen": "gefrorene", "ancient": "uralte", "carved": "geschnitzte", "square": "eckige", "muddy": "schlammige",
    "folded": "gefaltete", "rusty": "rostige", "empty": "leere", "open": "offene", "blue": "blaue",
}  # fmt: skip
_PLACES = {
    "old harbour": "alten Hafen", "market stall": "Marktstand", "railway bridge": "Eisenbahnbrücke",
    "kitchen shelf": "Küchenregal", "stone wall": "Steinmauer", "garden gate": "Gartentor", "bus stop": "Haltestelle",
    "lighthouse": "Leuchtturm", "bakery counter": "Tresen der Bäckerei", "tennis court": "Tennisplatz",
    "subway stairs": "Treppe zur U-Bahn", "camp fire": "Lagerfeuer", "swimming pool": "Schwimmbecken",
    "museum entrance": "Eingang des Museums", "petrol pump": "Zapfsäule", "village square": "Dorfplatz",
    "hay cart": "Heuwagen", "front porch": "Vorbau", "ski lift": "Skilift", "fish tank": "Aquarium",
    "school yard": "Schulhof", "library desk": "Lesetisch", "river bank": "Flussufer", "hotel lobby": "Hotelhalle",
    "church tower": "Kirchturm", "barn door": "Scheunentor", "ticket office": "Schalter", "castle moat": "Burggraben",
}  # fmt: skip
_GOODS = {
    "coffee": "Kaffee", "steel": "Stahl", "timber": "Holz", "wheat": "Weizen", "cotton": "Baumwolle",
    "paper": "Papier", "olive oil": "Olivenöl", "barley": "Gerste", "salt": "Salz", "leather": "Leder",
    "tobacco": "Tabak", "cheese": "Käse", "zinc": "Zink", "honey": "Honig", "diesel": "Diesel", "rice": "Reis",
    "silk": "Seide", "copper": "Kupfer", "lobster": "Hummer", "cement": "Zement", "rubber": "Gummi",
    "sugar": "Zucker", "wool": "Wolle", "glass": "Glas",
}  # fmt: skip
_LANDS = {
    "Norway": "Norwegen", "Chile": "Chile", "Kenya": "Kenia", "Japan": "Japan", "Portugal": "Portugal",
    "Canada": "Kanada", "Vietnam": "Vietnam", "Poland": "Polen", "Ghana": "Ghana", "Peru": "Peru", "Iceland": "Island",
    "Greece": "Griechenland", "Brazil": "Brasilien", "Egypt": "Ägypten", "Nepal": "Nepal", "Oman": "Oman",
    "Hungary": "Ungarn", "Cuba": "Kuba", "Mali": "Mali", "Latvia": "Lettland", "Jordan": "Jordanien", "Laos": "Laos",
    "Finland": "Finnland", "Bolivia": "Bolivien",
}  # fmt: skip
_SLOTS = {"thing": _THINGS, "other": _THINGS, "trait": _TRAITS, "place": _PLACES, "good": _GOODS, "land": _LANDS}
_FORMS = (
    ("How many {trait} {thing} are next to the {place} in this picture?",
     "Wie viele {trait} {thing} sind in diesem Bild neben dem {place}?"),
    ("Which country exported the most {good} to {land} in {year} according to the chart?",
     "Welches Land führte laut der Grafik im Jahr {year} am meisten {good} nach {land} aus?"),
    ("What is the difference between the {good} output of {land} in {year} and in the year before?",
     "Wie groß ist der Unterschied zwischen der Erzeugung von {good} in {land} im Jahr {year} und im Jahr davor?"),
    ("What colour are the {thing} that stand behind the {trait} {other} near the {place}?",
     "Welche Farbe haben die {thing}, die hinter den {trait} {other} beim {place} stehen?"),
    ("Is the number of {trait} {thing} at the {place} larger than the number of {other}?",
     "Ist die Zahl der {trait} {thing} am {place} größer als die Zahl der {other}?"),
    ("In which year did the price of {good} in {land} first rise above {number} dollars a tonne?",
     "In welchem Jahr stieg der Preis von {good} in {land} zum ersten Mal über {number} Dollar je Tonne?"),
    ("If {number} {thing} fit into one box, how many boxes are needed for the {other} shown at the {place}?",
     "Wenn {number} {thing} in eine Kiste passen, wie viele Kisten braucht man für die {other} am {place}?"),
    ("What does the sign between the {trait} {thing} and the {place} tell visitors to do?",
     "Was sollen Besucher nach dem Schild zwischen den {trait} {thing} und dem {place} tun?"),
    ("Who is carrying the {trait} {thing} past the {place}, and where are they heading?",
     "Wer trägt die {trait} {thing} am {place} vorbei, und wohin gehen sie?"),
    ("What percentage of the {good} sold in {land} during {year} came from {other_land}?",
     "Welcher Anteil von {good}, der {year} in {land} verkauft wurde, kam aus {other_land}?"),
    ("Why would the {thing} beside the {place} probably be unsafe for a child to climb on?",
     "Warum wären die {thing} neben dem {place} wohl unsicher, wenn ein Kind darauf klettert?"),
    ("Based on the table, which of the {number} regions of {land} grew less {good} than in {year}?",
     "Welche der {number} Regionen von {land} erzeugten laut der Tabelle weniger {good} als {year}?"),
)  # fmt: skip


def questions(number: int, seed: object) -> list[tuple[str, str]]:
    """Different questions as benchmarks ask them, each with its translation into German."""
    draw = Random(f"questions/{seed}")
    found: dict[str, str] = {}
    while len(found) < number:
        english, german = draw.choice(_FORMS)
        words = {slot: draw.choice(list(known)) for slot, known in _SLOTS.items()}
        words["other_land"] = draw.choice(list(_LANDS))
        numbers = {"year": str(draw.randint(1950, 2023)), "number": str(draw.randint(3, 90))}
        known = {**_SLOTS, "other_land": _LANDS}
        translated = {slot: known[slot][word] for slot, word in words.items()}
        found[english.format(**words, **numbers)] = german.format(**translated, **numbers)
    return list(found.items())


_SAME = {
    "how many": "what is the number of", "which country": "what nation", "larger than": "greater than",
    "next to": "beside", "beside": "next to", "according to the chart": "judging by the chart",
    "based on the table": "going by the table", "probably": "likely", "picture": "photo", "shown": "pictured",
    "what percentage": "which share", "difference between": "gap between", "first rise above": "first go over",
    "near": "close to", "behind": "in back of", "are needed": "does one need", "sold in": "sold within",
    "in which year": "in what year", "what colour": "which colour", "the most": "the largest amount of",
    "less": "a smaller amount of", "carrying": "holding", "needed": "required",
}  # fmt: skip
_BEFORE = ("Look at the image. ", "Please tell me: ", "Consider the picture carefully and answer. ", "Question: ")
_AFTER = (" Answer briefly.", " Give a short answer.", " Explain your answer.", "")


def question_leaks(question: str, translation: str, seed: object) -> dict[str, str]:
    """A question in each way, by its kind."""
    draw = Random(f"{question}/{seed}")
    return {
        "verbatim": draw.choice(_BEFORE) + question.upper() if draw.random() < 0.3 else question + draw.choice(_AFTER),
        "reordered": _reordered(question, draw),
        "paraphrased": _paraphrased(question, draw),
        "translated": translation,
    }


def _reordered(question: str, draw: Random) -> str:
    """Its two halves change places, as clauses do; or its options would, were there any."""
    words = question.rstrip("?").split()
    cut = draw.randint(len(words) // 3, 2 * len(words) // 3)
    return f"{' '.join(words[cut:])}, {' '.join(words[:cut])}?"


def _paraphrased(question: str, draw: Random) -> str:
    """Up to three expressions become others that say the same, and something is said before or after."""
    said = question[0].lower() + question[1:]
    fitting = [one for one in _SAME if re.search(rf"\b{one}\b", said)]
    draw.shuffle(fitting)
    for one in fitting[:3]:
        said = re.sub(rf"\b{one}\b", _SAME[one], said, count=1)
    said = said[0].upper() + said[1:]
    return (draw.choice(_BEFORE) if draw.random() < 0.5 else "") + said + draw.choice(_AFTER)
