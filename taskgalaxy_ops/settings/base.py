"""What all settings share: names, strict checks, and messages that name the field, the value and the fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.extensions import QUESTION_FORMS, Registry

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f/\\]+$")]


def known(registry: Registry[Any]) -> AfterValidator:
    """Validates a name that a registry has; its message says which there are, and what brings them."""

    def check(name: str) -> str:
        if registry.knows(name):
            return name
        raise PydanticCustomError("unknown_name", "Input should be {told}", {"told": registry.told()})

    return AfterValidator(check)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"'{text}' is no regular expression ({error})") from error
    return text


def _written(form: str) -> str:
    if QUESTION_FORMS.split(form)[1]:
        try:
            QUESTION_FORMS.get(form)
        except SettingsError as error:
            raise ValueError(str(error)) from error
    return form


Patterns = tuple[Annotated[str, AfterValidator(_pattern)], ...]  # regular expressions
# The name of a question form: one that ships, or one that an installed package brings; or of one in a language.
Variant = Annotated[str, known(QUESTION_FORMS), AfterValidator(_written), Field(examples=list(QUESTION_FORMS.shipped))]
# The prompts that ship; a question form's is called write_ and its name.
PROMPTS = ("filter", *(f"write_{form}" for form in QUESTION_FORMS.shipped), "answer", "blind", "vote", "expand")
Cron = Annotated[str, Field(pattern=r"^(@(hourly|daily|weekly|monthly)|\S+ \S+ \S+ \S+ \S+)$")]


class Strict(BaseModel):
    """Base of everything that a user writes in YAML: an unknown field is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True)


def known_prompt(name: str) -> str:
    """The name of a prompt. Raises ValueError for one that no stage and no question form has."""
    if name in PROMPTS or (name.startswith("write_") and QUESTION_FORMS.knows(name.removeprefix("write_"))):
        return name
    forms = [f"write_{form}" for form in QUESTION_FORMS.names()]
    known = ", ".join(repr(each) for each in dict.fromkeys([*PROMPTS, *forms]))
    raise ValueError(f"no prompt is called {name!r}: it should be one of {known}")


def valid_name(name: str) -> bool:
    """Whether a source may have this name: 1 to 100 characters, no slash, backslash or control character."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        return False
    return bool(name.strip())


_OWN_WORDS = {"missing": "is missing: add it", "extra_forbidden": "no such field: remove it or mend its name"}


Validated = TypeVar("Validated", bound=BaseModel)


def validated(kind: type[Validated], raw: Mapping[str, Any], where: str) -> Validated:
    """Settings of the class ``kind`` from JSON-like values; ``where`` begins the message of an error.

    Raises SettingsError, which names each wrong field, its value and the fix.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # pydantic also calls a list with wrong items too short; that second message would only confuse.
        places = [item["loc"] for item in error.errors()]
        errors = [
            item
            for item in error.errors()
            if item["type"] != "too_short" or sum(place[: len(item["loc"])] == item["loc"] for place in places) == 1
        ]
        lines = [f"{where}: {len(errors)} mistake(s)."]
        for item in errors:
            field = ".".join(str(part) for part in item["loc"]) or "(whole file)"
            # Our own messages name their values. An unknown field may hold a secret, and so may a field about keys.
            silent = item["type"] in {"missing", "extra_forbidden", "value_error"} or "key" in field
            value = "" if silent else f" is {_shown(item['input'])}"
            message = _OWN_WORDS.get(item["type"], item["msg"].removeprefix("Value error, "))
            lines.append(f"  {field}{value}: {message}")
        raise SettingsError("\n".join(lines)) from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
