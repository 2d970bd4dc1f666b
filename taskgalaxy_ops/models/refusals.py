"""Classifies what a server sends in place of a reply: of which kind it is, and how long to wait before the next try.

Servers wrap their errors in objects, lists, texts, JSON within texts and HTML pages, and use one status for several
things. The rules below look at the status and at the words; the first that fits decides. Sources of the wordings:
docs/models.md, "Dialects".
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from html import unescape
from typing import Any, Literal

Kind = Literal["busy", "slow", "failed", "content", "long", "form", "fatal", "declined"]

_SLOW = {408, 503, 504, 524, 529}  # the model is overloaded or loads, or a proxy on the way timed out
_REPEATABLE = {409, 424, 425}  # conflicts and failures that a later request does not meet
_PARAMETERS = (
    *("response_format", "max_completion_tokens", "max_tokens", "temperature", "top_p", "seed", "stop"),
    *("reasoning_effort", "extra_body"),
)
_ROOMS = {"max_tokens", "max_completion_tokens"}
_ROUTED = "provider_name"  # the field in which a router says whose error it passes on
_DEEPEST = 6
_LONGEST_BODY = 20_000  # characters of a text that are looked at

_SPENT = re.compile(
    r"insufficient_quota|billing[ _]hard[ _]limit|credit balance is |insufficient (credit|balance|funds)"
    r"|out of credits|(requires|purchase|buy) more credits|budget[ _]?(has been )?exceeded|exceeded_?budget"
    r"|specified \w* ?usage limits"
)
_KEY = re.compile(
    r"(invalid|incorrect|missing|expired|no) api[ _-]?key|api[ _-]?key (not valid|invalid|expired|has expired)"
    r"|api_key_invalid|(invalid|missing) .{0,20}authorization header"
)
_CONTENT_CODES = {
    *("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "moderation_blocked"),
    *("safety", "image_safety", "prohibited_content", "data_inspection_failed", "datainspectionfailed"),
}
_CONTENT = re.compile(
    r"content[ _-]?(filter|policy|management policy)|responsible ?ai\b|(was|were|been) flagged|flagged (as|by|for)\b"
    r"|(requires|failed|by|our) (\w+ )?moderation|moderation (system|policy|filter|service|layer)|moderation_blocked"
    r"|data_?inspection|inappropriate content|prohibited_content|sensitive content|considered high risk"
    r"|safety (system|filter|polic|guideline|violation|classifier|reasons)|safety_check"
    r"|(blocked|rejected|refused|filtered) (\w+ ){0,4}safety\b"
    r"|violat\w* .{0,40}?\b(usage|content|safety|acceptable|community|our)\b.{0,20}?(polic|guideline|terms)"
)
_ROOM = re.compile(
    r"at most (\d+) completion tokens"
    r"|max_(?:completion_)?tokens\W.{0,60}?(?:less than or equal to|<=|at most|maximum(?! context| model)(?: value"
    r"| allowed)?(?: is| of)?|(?:cannot|can't|must not|may not) (?:be (?:greater|larger|more) than|exceed))"
    r"\D{0,24}(\d+)"
    r"|max_tokens: \d+ > (\d+)|range of max_tokens (?:is|should be) \[\d+, ?(\d+)\]"
)
_LONG = re.compile(
    r"context[ _](length|size|window|limit)|maximum (model |context |input |prompt )?length|exceed_context"
    r"|(prompt|input|request|message|string)s? (is |are )?too (long|large)|too many (input |prompt )?tokens"
    r"|exceeds? the (maximum|max|allowed|available) .{0,40}(token|length|context)|inputs?`? tokens? \+ `?max_new_tokens"
    r"|inputs?`? (token count|length)|max_tokens must be at least 1|payload too large|request entity too large"
    r"|longer than the (maximum|model)|token limit( of| is| for|:) |must have less than \d+ tokens|reduce the length of"
    r"|model output limit was reached"
)
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n't support|unknown|unrecognized|unexpected|not permitted|not allowed|extra_forbidden"
    r"|extra inputs|only the default|deprecated|unavailable|does not exist|instead"
    r"|not (currently )?(enabled|available)|cannot"
)
_STRUCTURE = re.compile(
    r"response_format|response_?schema|json[ _]schema|minitems|maxitems|json_object|structured[ _]outputs?\b"
    r"|guided[ _](json|decoding|grammar)|\bjson mode|xgrammar|(parse|compile|invalid|unsupported) (the )?grammar"
    r"|grammar (is|error|compil)"
)
_NO_STRUCTURE = re.compile(r"(invalid|unsupported|failed to|not support|unable to) .{0,40}(schema|grammar|format)")
_NO_THINKING = re.compile(r"not support (thinking|reasoning)\b")
_BLIND = re.compile(r"\bimages?( inputs?)? (is|are) not supported|not support (images?|vision)\b")
IMAGES = "images"  # the parameter of a refusal of more images in a request than the model takes
_TOO_MANY_IMAGES = re.compile(
    r"at most \d+ images?\b|too many images|more than (one|\d+) images?\b|only (supports? |accepts? |takes? )?"
    r"(one|1|a single) image\b|max(imum)? (number|amount) of images|images? per (request|prompt)"
)
_BUSY = re.compile(
    r"rate.?limit|too many requests|resource_?exhausted|throttl(ed|ing)|overloaded|over ?capacity|at capacity"
    r"|try again in \d"
)
_RATE = re.compile(r"rate limit (reached|exceeded)|too many requests")
_OTHERS = r"(?:(?!image|picture|photo|media|file|url|lora|adapter).){0,120}?"  # what lies between is not about these
_LOADING = re.compile(
    rf"\b(model|weights|server|engine)\b{_OTHERS}\bload(ing|ed)\b(?! (the )?(image|picture|photo|media|file|url|lora))"
    r"|loading (the )?(model|weights)|warming up|cold start"
)
_NO_MODEL = re.compile(
    rf"model_not_found|invalid model\b|unknown model\b|no such model|not a valid model\b|\bmodel\b{_OTHERS}"
    r"(does not exist|not found|not exist)"
)
IMAGE_URL = "image_url"  # the parameter of a failure to fetch an image by its URL
_UNREAD = re.compile(r"invalid_image_url|download|fetch|retriev")  # the provider could not read the image by its URL
_AGAIN_IN = re.compile(
    r"(?:try|retry)(?:ing)? (?:again )?(?:in|after) (?:about )?((?:\d+(?:\.\d+)?\s*(?:ms|milliseconds?|s|secs?|seconds?"
    r"|m|mins?|minutes?|h|hours?)\s*)+)"
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)")
_SIGNED = re.compile(r"\?\S*X-Amz-Signature\S*", re.IGNORECASE)  # a signed URL lets anybody read the image
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]{0,500}>")
# From here on an error's text repeats our request: pydantic's `input`, or the messages.
_REPEATED = re.compile(
    r"""(?:['"]input['"]\s*:|input_value=|['"](?:messages|content|text)['"]\s*:\s*[\[{'"]).*?"""
    r"""(?=, ['"]ctx['"]\s*:|, input_type=|\}, \{['"]type['"]: ['"][^'"]*['"], ['"]loc['"]|$)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a server said in place of a reply.

    busy: too many requests at once. slow: overloaded, loading or timed out. failed: an error of the server. content:
    this request's content was moderated. long: it does not fit the model. form: the model does not take ``parameter``.
    fatal: every request to this model would be refused (key, credit, name). declined: refused for a reason that only
    another request can tell.
    """

    kind: Kind
    why: str  # the status and the server's message, without signatures of URLs
    wait: float = 0.0  # seconds that the server asks to wait; 0: it does not say
    parameter: str = ""  # of a form; IMAGES: it takes fewer; IMAGE_URL of a failure to fetch an image
    room: int = 0  # of a long one: the most tokens that a reply may have, where the server says it


def classify(status: int, body: Any, headers: Mapping[str, str], *, by_url: bool = False) -> Refusal:
    """The kind of a reply with this status from its decoded body. ``by_url``: the model reads images by URL."""
    codes, message = _said(body)
    headers = {name.lower(): value for name, value in headers.items()}
    text = f"{' '.join(codes)} {message}".lower()
    kind, parameter, room = _kind(status, codes, text, by_url)
    said = unsigned(message) or "no message"
    wait = max(retry_after(headers), _asked_to_wait(body, text))
    if status == 402 and wait:  # what is under way counts against the credit
        kind = "busy"
    if kind == "fatal" and status == 404 and _ROUTED in codes:  # another of the router's providers may have it
        kind = "failed"
    if kind == "busy":
        wait = wait or _until_reset(headers)
    return Refusal(kind=kind, why=f"{status}, {said[:300]}", wait=wait, parameter=parameter, room=room)


def _kind(status: int, codes: list[str], text: str, by_url: bool) -> tuple[Kind, str, int]:
    """The kind, a form's parameter, and the room that the server allows."""
    if status in {401, 402} or _SPENT.search(text) or _KEY.search(text):
        return "fatal", "", 0
    if _moderated(status, codes, text):
        return "content", "", 0
    formal = status in {400, 404, 422, 501}
    if formal and (named := next((name for name in _PARAMETERS if name in codes and name not in _ROOMS), "")):
        return "form", named, 0
    if status != 429 and (limit := _ROOM.search(text)):
        return "long", "", int(next(filter(None, limit.groups())))
    if "request too large" in text or status == 413 or (status != 429 and _LONG.search(text)):
        return "long", "", 0
    if (formal or (status == 500 and _NO_STRUCTURE.search(text))) and (parameter := _unsupported(codes, text)):
        return "form", parameter, 0
    if (formal or status == 500) and _TOO_MANY_IMAGES.search(text):
        return "form", IMAGES, 0
    if by_url and status < 500 and _UNREAD.search(text):  # the image may be fine: try again
        return "failed", IMAGE_URL, 0
    return _of_status(status, text), "", 0


def _moderated(status: int, codes: list[str], text: str) -> bool:
    """Whether the request's content was refused. A server that fails is believed only if a code says so."""
    if status == 451 or not _CONTENT_CODES.isdisjoint(code.lower() for code in codes):
        return status != 429
    return status < 500 and status != 429 and bool(_CONTENT.search(text))


def _of_status(status: int, text: str) -> Kind:
    if status == 429 or (_RATE if status == 403 else _BUSY).search(text):
        return "slow" if status in _SLOW else "busy"
    if status in _SLOW or _LOADING.search(text):
        return "slow"
    if _BLIND.search(text) and status not in {404, 405}:  # some say so as a failure of theirs
        return "declined"
    if status >= 500 or status in _REPEATABLE:
        return "failed"
    return "fatal" if status in {404, 405} or _NO_MODEL.search(text) else "declined"


def _unsupported(codes: list[str], text: str) -> str:
    """The parameter of our request that the model does not take; "" where the error is about something else."""
    if _STRUCTURE.search(text):
        return "response_format"
    if _NO_THINKING.search(text):
        return "reasoning_effort"
    named = [name for name in _PARAMETERS if name in codes or _names(text, name)]
    # Where two are named, the first is refused: "max_tokens is not supported, use max_completion_tokens instead".
    named.sort(key=lambda name: (name not in codes, text.find(name)))
    return named[0] if named and (named[0] in codes or _UNSUPPORTED.search(text)) else ""


def _names(text: str, name: str) -> bool:
    """Whether a text names a parameter. "Stop" or "temperature" may also be what a picture shows."""
    if "_" in name:
        return bool(re.search(rf"\b({name}|{name.replace('_', '')})\b", text))
    before = r"(?:parameters?|params?|arguments?|fields?|options?|support\w*|unknown|unsupported|unexpected|invalid)"
    after = r"(?:parameter|argument|field|option|is|isn|not|does|must|value|extra)"
    return bool(re.search(rf"['\"`]{name}['\"`]|\b{before}\W{{1,4}}{name}\b|\b{name}\W{{0,2}} {after}\b", text))


def _said(body: Any) -> tuple[list[str], str]:
    """The codes and the message in an error's body, whatever its envelope."""
    codes: list[str] = []
    messages: list[str] = []
    for name, value in _walk(body, "message", 0):
        (codes if name in {"code", "type", "param", "status", "reason", "loc"} else messages).append(value)
    seen = dict.fromkeys(part.strip() for part in messages if part.strip())
    # An outer message often repeats an inner one.
    kept = [part for part in seen if not any(part != other and part in other for other in seen)]
    return codes, " ".join("; ".join(kept).split())


def _walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    """The texts of an error that say what is wrong, with the names of their fields; never what it repeats of us."""
    if depth > _DEEPEST or value is None or isinstance(value, bool):
        return
    if isinstance(value, Mapping):
        for inner in ("code", "type", "param", "status", "reason"):
            if isinstance(value.get(inner), str | int):
                yield inner, str(value[inner])
        if value.get(_ROUTED):
            yield "code", _ROUTED
        if isinstance(value.get("loc"), list):
            yield "loc", str(value["loc"][-1]) if value["loc"] else ""
        for inner in ("message", "detail", "msg", "error", "errors", "details", "metadata", "raw", "title", "reasons"):
            if inner in value:
                yield from _walk(value[inner], inner, depth + 1)
    elif isinstance(value, list):
        for each in value[:20]:
            yield from _walk(each, name, depth + 1)
    elif isinstance(value, str):
        yield from _walk_text(value[:_LONGEST_BODY], name, depth)
    elif isinstance(value, int | float):
        yield name, str(value)


def _walk_text(text: str, name: str, depth: int) -> Iterator[tuple[str, str]]:
    bare = text.strip()
    if bare.startswith("<") and _TAG.match(bare):
        title = _TITLE.search(bare)
        yield name, unescape(_TAG.sub(" ", title[1] if title else bare)).strip()[:300]
        return
    start, end = bare.find("{"), bare.rfind("}")
    if 0 <= start < end:  # JSON as a text, perhaps behind the name of a library's error
        with suppress(ValueError, RecursionError):
            inner = json.loads(bare[start : end + 1])
            yield name, bare[:start].strip(" -:")
            yield from _walk(inner, name, depth + 1)
            return
    yield name, _REPEATED.sub("", bare)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the headers ask to wait; 0 if they do not say.

    ``retry-after-ms``, or Retry-After, which is a number or a date (RFC 9110, 10.2.3).
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "")
        try:
            seconds = float(text) * scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, OverflowError, TypeError):
                continue
        if 0 < seconds < float("inf"):  # false of nan too
            return seconds
    return 0.0


def _asked_to_wait(body: Any, text: str) -> float:
    """The wait that a body asks for: Google's ``retryDelay``, or words such as "try again in 1m2.5s"."""
    found = _AGAIN_IN.search(text)
    said = [found[1]] if found else []
    with suppress(ValueError, RecursionError, TypeError):
        said += re.findall(r"retryDelay\W{1,12}([\d.]{1,20}s)", json.dumps(body)[:_LONGEST_BODY])
    return max(map(_seconds, said), default=0.0)


def _seconds(text: str) -> float:
    units = {"ms": 0.001, "mi": 60.0, "m": 60.0, "s": 1.0, "h": 3600.0}
    total = 0.0
    for number, unit in _PART.findall(text):
        short = "ms" if unit.startswith(("ms", "milli")) else unit[0]
        total += float(number) * units[short]
    return total


def _until_reset(headers: Mapping[str, str]) -> float:
    """Seconds until the limit that a 429 met is reset, by the headers of Anthropic, OpenRouter and the IETF's draft."""
    longest = 0.0
    for name, value in headers.items():
        if "ratelimit" in name.lower() and name.lower().endswith("-reset"):
            longest = max(longest, _until(value))
    return longest


def _until(text: str) -> float:
    """Seconds until a time given in seconds, as a Unix time in seconds or milliseconds, or as a date."""
    try:
        number = float(text)
    except ValueError:
        try:
            return max(0.0, datetime.fromisoformat(text).timestamp() - time.time())
        except (ValueError, OverflowError, TypeError):
            return 0.0
    for scale, least in ((0.001, 1e12), (1.0, 1e9)):
        if number >= least:
            return max(0.0, number * scale - time.time())
    return max(0.0, number) if number < 86_400 else 0.0


def unsigned(text: str) -> str:
    """The text without the signatures of URLs in it."""
    return _SIGNED.sub("?…", text)
