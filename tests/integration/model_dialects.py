"""What servers of chat models do differently, as a table, and a stand-in that answers in each dialect.

docs/models.md has the same servers, with where each difference is written.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from PIL import ImageStat
from serving import Quiet

MODELS = Path(__file__).parents[2] / "docs" / "models.md"
SCHEMA, OBJECT = "json_schema", "json_object"  # forms of structured output, where a parameter is asked for
_WAIT = 0.03  # seconds, in place of the seconds or minutes that a real server says
_REPLIES = {"filter": "verdicts", "write": "pairs", "vote": "votes"}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a server answers in place of a reply; ``kind``: what it means."""

    status: int
    body: Any  # a text is sent as it is, anything else as JSON
    kind: str
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0  # seconds that it asks to wait
    parameter: str = ""  # that it does not take


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a server differs from the protocol as OpenAI's newest models speak it."""

    name: str  # its row in docs/models.md begins so
    busy: Said
    too_long: Said | None  # None: it cuts a reply short instead
    refused: Said | Mapping[str, Any]  # an image that its filter takes or that it cannot read; or a choice that says so
    no_model: Said | None = None  # None: it answers whatever name is asked for
    no_key: Said | None = None
    spent: Said | None = None
    away: Said | None = None  # it is overloaded, or loads
    refuses: Mapping[str, Said] = field(default_factory=dict)  # by parameter
    upstream: Any = field(default_factory=lambda: {"choices": []})  # the body of a 200 that holds no reply
    settings: Mapping[str, Any] = field(default_factory=dict)  # of each model
    written: Callable[[str], Any] = lambda text: text  # a reply's text, as the content that carries it
    usage: Callable[[int, int], Any] = lambda asked, told: {
        "prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told,
    }  # fmt: skip
    counts_room: bool = True  # whether max_tokens counts against the context


def _openai(status: int, message: str, kind: str, type: str = "invalid_request_error", **more: Any) -> Said:
    said = {name: more.pop(name) for name in ("headers", "wait", "parameter") if name in more}
    return Said(status=status, kind=kind, body={"error": {"message": message, "type": type, **more}}, **said)


def _google(status: int, message: str, kind: str, *details: Any, **said: Any) -> Said:
    error = {"code": status, "message": message, "status": "SOME_STATUS", "details": list(details)}
    return Said(status=status, kind=kind, body=[{"error": error}], **said)


def _flat(status: int, message: str, kind: str, **said: Any) -> Said:
    body = {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": status}
    return Said(status=status, kind=kind, body=body, **said)


def _routed(status: int, raw: str, kind: str, **said: Any) -> Said:
    error = {"message": "Provider returned error", "code": status, "metadata": {"raw": raw, "provider_name": "One"}}
    return Said(status=status, kind=kind, body={"error": error}, **said)


OPENAI = Dialect(
    name="OpenAI",
    busy=_openai(
        429, "Rate limit reached for gpt-5 in organization org-x on requests per min (RPM): Limit 500, Used 500, "
        "Requested 1. Please try again in 30ms. Visit https://platform.openai.com/account/rate-limits to learn more.",
        "busy", "requests", code="rate_limit_exceeded", wait=_WAIT,
    ),
    too_long=_openai(
        400, "This model's maximum context length is 4097 tokens. However, you requested 5120 tokens (3120 in the "
        "messages, 2000 in the completion). Please reduce the length of the messages or completion.",
        "long", param="messages", code="context_length_exceeded",
    ),
    refused=_openai(
        400, "Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please try again with "
        "a different prompt.", "content", code="invalid_prompt",
    ),
    no_model=_openai(
        404, "The model `m` does not exist or you do not have access to it.", "fatal", code="model_not_found"
    ),
    no_key=_openai(401, "Incorrect API key provided: sk-x.", "fatal", code="invalid_api_key"),
    spent=_openai(
        429, "You exceeded your current quota, please check your plan and billing details.", "fatal",
        "insufficient_quota", code="insufficient_quota",
    ),
    away=_openai(503, "The engine is currently overloaded, please try again later", "slow", "server_error"),
    refuses={
        "max_tokens": _openai(
            400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
            "instead.", "form", param="max_tokens", code="unsupported_parameter", parameter="max_tokens",
        ),
        "temperature": _openai(
            400, "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is "
            "supported.", "form", param="temperature", code="unsupported_value", parameter="temperature",
        ),
        "top_p": _openai(
            400, "Unsupported parameter: 'top_p' is not supported with this model.", "form", param="top_p",
            code="unsupported_parameter", parameter="top_p",
        ),
    },
    upstream='{"id": "chatcmpl-1", "choices": [{"index": 0, "mess',
    usage=lambda asked, told: {
        "prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "rejected_prediction_tokens": 0},
    },
)  # fmt: skip

AZURE = Dialect(
    name="Azure OpenAI",
    busy=_openai(
        429, "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded "
        "token rate limit of your current OpenAI S0 pricing tier. Please retry after 0.03 seconds. Please go here: "
        "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit.",
        "busy", "", code="429", wait=_WAIT, headers={"retry-after-ms": "30"},
    ),
    too_long=OPENAI.too_long,
    refused=_openai(
        400, "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please "
        "modify your prompt and retry.", "content", "", param="prompt", code="content_filter",
        innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"violence": {"filtered": True}}},
    ),
    no_model=_openai(404, "The API deployment for this resource does not exist.", "fatal", code="DeploymentNotFound"),
    no_key=_openai(401, "Access denied due to invalid subscription key or wrong API endpoint.", "fatal", code="401"),
    away=Said(status=408, body={"error": {"code": "Timeout", "message": "The operation was timeout."}}, kind="slow"),
    refuses={
        SCHEMA: _openai(
            400, "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
            "form", param="response_format", code=None, parameter="response_format",
        ),
    },
    upstream={"choices": [{"index": 0, "finish_reason": None, "message": {"role": "assistant", "content": None}}]},
)  # fmt: skip

GEMINI = Dialect(
    name="Gemini",
    busy=_google(
        429, "You exceeded your current quota, please check your plan and billing details. * Quota exceeded for "
        "metric: generate_content_free_tier_requests, limit: 10 Please retry in 0.03s.", "busy",
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.03s"}, wait=_WAIT,
    ),
    too_long=_google(
        400, "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).", "long"
    ),
    refused={"finish_reason": "SAFETY", "message": {"role": "assistant"}},
    no_model=_google(404, "models/m is not found for API version v1main, or is not supported.", "fatal"),
    no_key=_google(
        400, "API key not valid. Please pass a valid API key.", "fatal",
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
    ),
    away=_google(503, "The model is overloaded. Please try again later.", "slow"),
    refuses={
        "seed": _google(
            400, 'Invalid JSON payload received. Unknown name "seed": Cannot find field.', "form",
            {"fieldViolations": [{"description": 'Unknown name "seed": Cannot find field.'}]}, parameter="seed",
        ),
    },
    # Thoughts are in the total alone.
    usage=lambda asked, told: {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told + 5},
    counts_room=False,
)  # fmt: skip

ANTHROPIC = Dialect(
    name="Anthropic",
    busy=Said(
        status=429, kind="busy", wait=_WAIT,
        body={"error": {
            "code": "rate_limit_error", "type": "invalid_request_error", "param": None,
            "message": "This request would exceed the rate limit for your organization of 20,000 input tokens per "
            "minute. Please reduce the prompt length or the maximum tokens requested, or try again later.",
        }},
        headers={"retry-after": "0.03", "anthropic-ratelimit-requests-reset": "2999-01-01T00:00:00Z"},
    ),
    too_long=_openai(400, "prompt is too long: 210000 tokens > 200000 maximum", "long"),
    refused=Said(
        status=400, kind="content",
        body={"type": "error", "error": {
            "details": None, "type": "invalid_request_error", "message": "Output blocked by content filtering policy",
        }},
    ),
    no_model=_openai(404, "model: m", "fatal", "not_found_error"),
    no_key=_openai(401, "invalid x-api-key", "fatal", "authentication_error"),
    spent=_openai(
        400, "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.", "fatal"
    ),
    away=_openai(529, "Overloaded", "slow", "overloaded_error"),
    refuses={
        "temperature": _openai(
            400, "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
            "form", parameter="temperature",
        ),
    },
    written=lambda text: f"Here is the JSON you asked for:\n\n```json\n{text}\n```",  # it ignores response_format
    counts_room=False,
)  # fmt: skip

OPENROUTER = Dialect(
    name="OpenRouter",
    busy=_routed(
        429, "qwen/qwen2.5-vl is temporarily rate-limited upstream. Please retry shortly.", "busy",
        headers={"Retry-After": "0.03"}, wait=_WAIT,
    ),
    too_long=_openai(
        400, "This endpoint's maximum context length is 4096 tokens. However, you requested about 5000 tokens (3000 of "
        "text input, 2000 in the output). Please reduce the length of either one.", "long", "", code=400,
    ),
    refused=Said(
        status=403, kind="content",
        body={"error": {
            "code": 403, "message": "m requires moderation on One. Your input was flagged for \"violence\". No credits "
            "were charged.", "metadata": {"reasons": ["violence"], "flagged_input": "…", "provider_name": "One"},
        }},
    ),
    no_model=_openai(400, "m is not a valid model ID", "fatal", "", code=400),
    no_key=_openai(401, "No auth credentials found", "fatal", "", code=401),
    spent=_openai(402, "Insufficient credits. Add more using https://openrouter.ai/credits", "fatal", code=402),
    away=_routed(404, "the model is not found", "failed"),  # of one of its providers
    upstream={"choices": [{
        "index": 0, "finish_reason": "error", "message": {"role": "assistant", "content": '{"verdicts": [{"ind'},
        "error": {"code": 502, "message": "Upstream error from One: the stream ended"},
    }], "usage": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 0}},
    usage=lambda asked, told: {
        "prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told, "cost": 0.0001,
    },
)  # fmt: skip

LITELLM = Dialect(
    name="LiteLLM",
    busy=_openai(
        429, "No deployments available for selected model, Try again in 0.03 seconds. Passed model=m. "
        "pre-call-checks=False, cooldown_list=[('id', {'Exception Received': 'litellm.RateLimitError'})]",
        "busy", "None", param="None", code="429", wait=_WAIT,
    ),
    too_long=_openai(
        400, "litellm.ContextWindowExceededError: litellm.BadRequestError: OpenAIException - {'error': {'message': "
        "\"This model's maximum context length is 4096 tokens.\", 'param': 'messages'}}\nReceived Model Group=m\n"
        "Available Model Group Fallbacks=None", "long", "None", param="None", code="400",
    ),
    refused=_openai(
        400, "litellm.BadRequestError: litellm.ContentPolicyViolationError: AzureException - The response was filtered "
        "due to the prompt triggering Azure OpenAI's content management policy.\nReceived Model Group=m\nAvailable "
        "Model Group Fallbacks=None", "content", "None", param="None", code="400",
    ),
    no_model=_openai(
        400, "/chat/completions: Invalid model name passed in model=m. Call `/v1/models` to view available models.",
        "fatal", "None", param="None", code="400",
    ),
    no_key=_openai(401, "Authentication Error, Invalid proxy server token passed.", "fatal", "auth_error", code="401"),
    spent=_openai(
        400, "Budget has been exceeded! Current cost: 10.2, Max budget: 10.0", "fatal", "budget_exceeded", code="400"
    ),
    away=_openai(500, "litellm.APIConnectionError: OpenAIException - Connection error.", "failed", "None", code="500"),
    refuses={
        "seed": _openai(
            400, "litellm.UnsupportedParamsError: zai does not support parameters: ['seed'], for model=glm. To drop "
            "these, set `litellm.drop_params=True`.", "form", "None", param="None", code="400", parameter="seed",
        ),
    },
    upstream={"choices": None, "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
    usage=lambda asked, told: None,  # as its upstream tells, which may be nothing
)  # fmt: skip

_ECHOED = (  # pydantic repeats the request, with all that it says
    "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted', 'input': {"
    "'messages': [{'role': 'user', 'content': 'the context length of content_filter, flagged by a rate limit'}], "
    "'response_format': {'type': 'json_schema'}}}]"
)
VLLM = Dialect(
    name="vLLM",
    busy=Said(  # of a proxy before it: vLLM itself queues
        status=429, kind="busy",
        body="<html>\r\n<head><title>429 Too Many Requests</title></head>\r\n<body><hr>nginx</body>\r\n</html>\r\n",
    ),
    too_long=_flat(
        400, "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context length is 3000 "
        "tokens and your request has 1210 input tokens (2000 > 3000 - 1210).", "long",
    ),
    refused=_flat(400, "cannot identify image file <_io.BytesIO object at 0x7f3c>", "declined"),
    no_model=Said(
        status=404, kind="fatal",
        body={"error": {"message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404}},
    ),
    no_key=Said(status=401, kind="fatal", body={"error": "Unauthorized"}),
    away=Said(status=502, kind="failed", body="<html><head><title>502 Bad Gateway</title></head></html>"),
    refuses={
        SCHEMA: _flat(
            400, "The provided JSON schema contains features not supported by xgrammar.", "form",
            parameter="response_format",
        ),
        "seed": _flat(400, _ECHOED, "form", parameter="seed"),
    },
    usage=lambda asked, told: {
        "prompt_tokens": asked, "total_tokens": asked + told, "completion_tokens": told, "prompt_tokens_details": None,
    },
)  # fmt: skip

SGLANG = Dialect(
    name="SGLang",
    busy=_flat(503, "The request queue is full.", "slow"),
    too_long=_flat(
        400, "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total "
        "of 5000 tokens: 3000 tokens from the input messages and 2000 tokens for the completion.", "long",
    ),
    refused=_flat(400, "An exception occurred while loading image data: cannot identify image file", "declined"),
    away=Said(status=503, kind="slow", body="Service Unavailable"),
    upstream="",
    usage=lambda asked, told: {
        "prompt_tokens": asked, "total_tokens": asked + told, "completion_tokens": told, "prompt_tokens_details": None,
        "reasoning_tokens": 0,
    },
)  # fmt: skip

OLLAMA = Dialect(
    name="Ollama",
    busy=_openai(
        503, "server busy, please try again.  maximum pending requests exceeded", "slow", "api_error", param=None
    ),
    too_long=None,
    refused=_openai(400, "Failed to process inputs: image: unknown format", "declined", "api_error"),
    no_model=_openai(404, "model \"m\" not found, try pulling it first", "fatal", "api_error"),
    away=Said(status=503, kind="slow", body={"error": "Server overloaded, please retry shortly (ref: aaa65c70)"}),
    refuses={
        "reasoning_effort": _openai(
            400, '"llama3.1:8b" does not support thinking', "form", param=None, code=None, parameter="reasoning_effort"
        ),
    },
    settings={"reasoning_effort": "low"},
    upstream={"error": {"message": "llama runner process has terminated: exit status 2", "type": "api_error"}},
)  # fmt: skip

LLAMA_CPP = Dialect(
    name="llama.cpp",
    busy=Said(
        status=503, kind="slow",
        body={"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
    ),
    too_long=Said(
        status=400, kind="long",
        body={"error": {
            "code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 14429, "n_ctx": 8192,
            "message": "the request exceeds the available context size. try increasing the context size or enable "
            "context shift",
        }},
    ),
    refused=Said(
        status=400, kind="declined",
        body={"error": {"code": 400, "message": "Failed to load image or audio file", "type": "invalid_request_error"}},
    ),
    no_key=Said(
        status=401, kind="fatal",
        body={"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}},
    ),
    away=Said(status=500, kind="failed", body={"error": {"code": 500, "message": "x", "type": "server_error"}}),
    refuses={
        SCHEMA: Said(
            status=400, kind="form", parameter="response_format",
            body={"error": {"code": 400, "message": "Failed to parse grammar", "type": "invalid_request_error"}},
        ),
    },
    counts_room=False,
)  # fmt: skip

TGI = Dialect(
    name="TGI",
    busy=Said(status=429, kind="busy", body={"error": "Model is overloaded", "error_type": "overloaded"}),
    too_long=Said(
        status=422, kind="long",
        body={
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 3000 `inputs` "
            "tokens and 2000 `max_new_tokens`", "error_type": "validation",
        },
    ),
    refused=Said(
        status=422, kind="declined",
        body={"error": "Input validation error: invalid image: unknown format", "error_type": "validation"},
    ),
    away=Said(
        status=424, kind="failed",
        body={"error": "Request failed during generation: Server error: out of memory", "error_type": "generation"},
    ),
    refuses={
        form: Said(
            status=422, kind="form", parameter="response_format",
            body="Failed to deserialize the JSON body into the target type: response_format: missing field `value` at "
            "line 1 column 4711",
        )
        for form in (SCHEMA, OBJECT)
    },
)  # fmt: skip

DIALECTS = (OPENAI, AZURE, GEMINI, ANTHROPIC, OPENROUTER, LITELLM, VLLM, SGLANG, OLLAMA, LLAMA_CPP, TGI)


class StandIn:
    """Answers properly, in a dialect: with what it lacks, and with one of each mishap. Its context is short."""

    context = 1250  # tokens
    a_unit = 100  # tokens of each item that is asked about

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.lock = threading.Lock()
        self.requests = 0
        self.served: list[tuple[int, int]] = []  # the tokens of each reply, as they were told
        self.said: Counter[str] = Counter()

    @property
    def handler(self) -> type[Quiet]:
        """A handler of requests, for ``serving.served``."""
        stand_in = self

        class Handler(Quiet):
            def handle_it(self) -> None:
                status, body, headers = stand_in.answer(json.loads(self.body()))
                raw = body if isinstance(body, str) else json.dumps(body)
                self.answer(status, raw.encode(), dict(headers))

        return Handler

    def answer(self, asked: Mapping[str, Any]) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body and headers of the answer to a request."""
        with self.lock:
            self.requests += 1
            said = self._mishap(asked)
            if said is None:
                return 200, self._reply(asked), {}
            what, answer = said
            self.said[what] += 1
            if isinstance(answer, Said):
                return answer.status, answer.body, answer.headers
            return 200, answer, {}

    def _mishap(self, asked: Mapping[str, Any]) -> tuple[str, Any] | None:
        dialect = self.dialect
        sent = {*asked, asked.get("response_format", {}).get("type")}
        if dialect.away and not self.said["away"]:
            return "away", dialect.away
        if unknown := next((name for name in dialect.refuses if name in sent), ""):
            return f"no {unknown}", dialect.refuses[unknown]
        if not self.said["busy"]:
            return "busy", dialect.busy
        needed = self.a_unit * len(_items(asked)) + (_room(asked) if dialect.counts_room else self.context - 200)
        if dialect.too_long and needed > self.context:
            return "too long", dialect.too_long
        if len(self.served) == 2 and not self.said["upstream"]:
            return "upstream", dialect.upstream
        if _green(asked):
            if isinstance(dialect.refused, Said):
                return "refused", dialect.refused
            self.said["refused"] += 1
        return None

    def _reply(self, asked: Mapping[str, Any]) -> Any:
        items, stage = _items(asked), _block(asked)["request"]
        entries = [_entry(stage, item) for item in items]
        text, finish = json.dumps({_REPLIES[stage]: entries}), "stop"
        if self.dialect.too_long is None and len(items) > 2:  # what does not fit the context is cut
            text, finish = text[: len(text) * 2 // 3], "length"
        message: Mapping[str, Any] = {"role": "assistant", "content": self.dialect.written(text)}
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "message": message}
        if _green(asked) and not isinstance(self.dialect.refused, Said):
            choice |= self.dialect.refused
        tokens = self.a_unit * len(items), 20 * len(items)
        self.served.append(tokens)
        body = {"id": f"x-{self.requests}", "object": "chat.completion", "model": asked["model"], "choices": [choice]}
        usage = self.dialect.usage(*tokens)
        return body if usage is None else {**body, "usage": usage}


def _block(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a request asks for: the fenced JSON in its text."""
    texts = [part["text"] for part in asked["messages"][-1]["content"] if part["type"] == "text"]
    fenced = next(text for text in texts if "\n```json\n" in text)
    found: dict[str, Any] = json.loads(fenced.rpartition("\n```json\n")[2].partition("\n```")[0])
    return found


def _items(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    block = _block(asked)
    found: list[dict[str, Any]] = block.get("task_types") or block["pairs"]
    return found


def _room(asked: Mapping[str, Any]) -> int:
    return int(asked.get("max_tokens") or asked["max_completion_tokens"])


def _green(asked: Mapping[str, Any]) -> bool:
    """Whether a request shows the green picture, which no server of the table takes."""
    parts = asked["messages"][-1]["content"]
    url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    red, green, blue = ImageStat.Stat(Pillow.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))).mean[:3]
    return green > red + blue


def _entry(stage: str, item: Mapping[str, Any]) -> dict[str, Any]:
    if stage == "filter":
        return {"index": item["index"], "fits": True, "reason": "it is there"}
    if stage == "write":
        name = item["task_type"].rpartition("~")[2]
        return {"index": item["index"], "question": f"What of {name}?", "answer": f"It is {name}.", "reasoning": ""}
    return {"index": item["index"], "vote": 1, "reason": "so it is"}
