"""Files in which people vote on pairs: CSV for a spreadsheet, and the JSON of Label Studio. Pure, but for reading.

What models and sources wrote is text of strangers: a cell that a spreadsheet would take for a formula begins with an
apostrophe, and Label Studio is told to show texts as texts. Formats of Label Studio: labelstud.io/guide/tasks (tasks,
predictions) and labelstud.io/guide/export (annotations; the format "JSON").
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from taskgalaxy_ops.errors import ReviewError
from taskgalaxy_ops.operations.review import Drawn, Filled
from taskgalaxy_ops.records import Vote, turns_in
from taskgalaxy_ops.storage.review_log import VERDICTS
from taskgalaxy_ops.taxonomy.labels import check_cell

FORMATS = ("csv", "label-studio")
_SHOWN = ("pair", "task_type", "form", "question", "answer", "reasoning", "further_turns", "judges", "picture")
_FILLED = ("verdict", "corrected_answer", "reason", "reviewer")

_CHOICES = "\n".join(f'    <Choice value="{verdict}"/>' for verdict in VERDICTS)
LABELS = f"""<View>
  <Image name="image" value="$image"/>
  <Header value="$task_type" size="5"/>
  <Text name="question" value="$question"/>
  <Text name="answer" value="$answer"/>
  <Text name="reasoning" value="$reasoning"/>
  <Text name="further_turns" value="$further_turns"/>
  <Choices name="verdict" toName="image" choice="single" required="true">
{_CHOICES}
  </Choices>
  <TextArea name="corrected_answer" toName="image" maxSubmissions="1" placeholder="the right answer, if it is wrong"/>
  <TextArea name="reason" toName="image" maxSubmissions="1" placeholder="why"/>
</View>
"""


def to_csv(drawn: Sequence[Drawn], pictures: Sequence[str]) -> str:
    """A table with a row for each pair, and empty columns for a person to fill in.

    pictures: a file or link each; of a pair about several images one that shows them side by side."""
    out = io.StringIO()
    columns = [*_SHOWN, *_FILLED]
    writer = csv.DictWriter(out, columns, lineterminator="\r\n")  # RFC 4180
    writer.writeheader()
    for each, picture in zip(drawn, pictures, strict=True):
        judges = "; ".join(f"{vote.judge}: {_voted(vote)}, {vote.reason}" for vote in each.votes)
        row = _told(each) | {"judges": judges, "picture": picture}
        writer.writerow({name: _cell(text) for name, text in row.items()})
    return out.getvalue()


def to_label_studio(drawn: Sequence[Drawn], pictures: Sequence[str]) -> str:
    """Tasks for a project whose labelling interface is ``LABELS``; each judge's vote is a prediction."""
    tasks = [
        {
            "data": _told(each) | {"image": picture},
            "predictions": [_prediction(vote) for vote in each.votes if vote.vote is not None],
        }
        for each, picture in zip(drawn, pictures, strict=True)
    ]
    return json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"


def _told(each: Drawn) -> dict[str, str]:
    pair = each.pair
    told = {"pair": pair.pair, "task_type": pair.task_type, "form": pair.variant}
    told |= {"question": pair.question, "answer": pair.answer, "reasoning": pair.reasoning or ""}
    further = [f"{n}. {asked}\n   {said}" for n, (asked, said) in enumerate(turns_in(pair.further_turns), 2)]
    return {**told, "further_turns": "\n".join(further)}


def _voted(vote: Vote) -> str:
    return "abstains" if vote.vote is None else VERDICTS[1 - vote.vote]


def _prediction(vote: Vote) -> dict[str, Any]:
    result = {"from_name": "verdict", "to_name": "image", "type": "choices", "value": {"choices": [_voted(vote)]}}
    return {"model_version": vote.judge, "result": [result]}


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP, "CSV Injection")."""
    return f"'{text}" if check_cell(text) or text.startswith(("\t", "\r", "'")) else text


def _uncell(text: str) -> str:
    """What a person wrote or copied into a cell, without the apostrophe of ``_cell``."""
    text = text.strip()
    return text[1:] if text.startswith("'") and _cell(text[1:]) == text else text


def read_reviews(file: Path, reviewer: str | None = None) -> list[Filled]:
    """The rows of a file that somebody filled in: CSV as ``to_csv`` writes it, or what Label Studio exports as JSON.

    reviewer: of rows that name none. Raises ReviewError where the file cannot be read.
    """
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise ReviewError(
            f"{file} cannot be read: {error.strerror}. Name a file that `review export` wrote."
        ) from error
    except UnicodeDecodeError as error:
        raise ReviewError(f"{file} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error
    rows = _tasks(file, text) if text.lstrip().startswith(("[", "{")) else _lines(file, text)
    return [
        Filled(
            place=place,
            pair=row.get("pair", ""),
            reviewer=(row.get("reviewer") or reviewer or "").lower(),
            verdict=row.get("verdict", "").lower(),
            reason=row.get("reason", ""),
            answer=row.get("corrected_answer", ""),
        )
        for place, row in rows
        if any(row.get(name) for name in ("verdict", "corrected_answer", "reason"))
    ]


def _lines(file: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    head = text.splitlines()[0] if text else ""
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    if missing := {"pair", "verdict"} - set(reader.fieldnames or ()):
        raise ReviewError(f"{file}: line 1 names no column {', '.join(sorted(missing))}. Keep the export's first line.")
    last = reader.line_num  # a row with line breaks in its cells has several lines: the first one names it
    try:
        for row in reader:
            place, last = f"line {last + 1}", reader.line_num
            if None in row:
                raise ReviewError(
                    f"{file}: {place} has more cells than line 1 has names. Put texts with commas in quotes."
                )
            yield place, {name: _uncell(cell or "") for name, cell in row.items()}
    except csv.Error as error:
        raise ReviewError(
            f"{file}: line {reader.line_num} is no CSV ({error}). Save the table as CSV again."
        ) from error


def _tasks(file: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise ReviewError(f"{file} is no JSON ({error}). Export the project as JSON again.") from error
    if not isinstance(tasks, list):
        raise ReviewError(f"{file}: it should be a list of tasks. Export the project as JSON.")
    for number, task in enumerate(tasks, 1):
        try:
            pair = task["data"]["pair"]
            for annotation in task["annotations"]:
                if not annotation.get("was_cancelled"):
                    yield f"task {task.get('id', number)}", {"pair": str(pair), **_annotated(annotation)}
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ReviewError(
                f"{file}: task {number} has not the form of Label Studio's JSON ({error!r}). Export the project as "
                "JSON, not as JSON-MIN."
            ) from error


def _annotated(annotation: Mapping[str, Any]) -> dict[str, str]:
    """What an annotation says, by the names of the labelling interface. A person is known by a number, never a name."""
    by = annotation.get("completed_by")
    found = {} if by is None else {"reviewer": f"label-studio-{by['id'] if isinstance(by, dict) else by}"}
    for result in annotation["result"]:
        value = result["value"]
        said = value.get("choices") or value.get("text") or [""]
        found[result["from_name"]] = (said if isinstance(said, str) else str(said[0])).strip()
    return found
