"""What servers send in place of a reply: the kind, the wait and the parameter that each body means."""

import time

import pytest

from taskgalaxy_ops.models.refusals import classify, retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "100000"}, 100_000),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "inf"}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "soon"}, 0),
        ({}, 0),
    ],
)
def test_what_headers_ask_to_wait(headers, seconds):
    assert retry_after(headers) == seconds


def wrapped(message, **fields):
    """One message in the envelopes that servers use."""
    inner = {"message": message, **fields}
    return [
        {"error": inner},
        [{"error": inner}],
        inner,
        {"detail": message, **fields},
        {"error": message, **fields},
        {"errors": [inner]},
        {"object": "error", **inner},
        {"error": {"message": f'litellm.APIError: {{"error": {{"message": "{message}"}}}}', **fields}},
        {"error": {"message": "Provider returned error", "metadata": {"raw": f'{{"message": "{message}"}}'}, **fields}},
    ]


KINDS = [
    (429, "Rate limit reached", "busy"),
    (400, "ThrottlingException: Too many requests", "busy"),
    (503, "The model is overloaded. Please try again later.", "slow"),
    (400, "Model tiny is currently loading", "slow"),
    (500, "boom", "failed"),
    (502, "Bad gateway", "failed"),
    (401, "who are you", "fatal"),
    (402, "Insufficient Balance", "fatal"),
    (400, "API key not valid. Please pass a valid API key.", "fatal"),
    (404, "The model `x` does not exist.", "fatal"),
    (400, "Invalid model name passed in model=x", "fatal"),
    (403, "Your input was flagged: openai requires moderation", "content"),
    (
        400,
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "content",
    ),
    (400, "Input data may contain inappropriate content.", "content"),
    (451, "not here", "content"),
    (400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens", "long"),
    (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096.", "long"),
    (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.", "long"),
    (400, "prompt is too long: 210000 tokens > 200000 maximum", "long"),
    (400, "the request exceeds the available context size", "long"),
    (400, "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).", "long"),
    (413, "Request Entity Too Large", "long"),
    (429, "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000", "long"),
    (400, "Unsupported parameter: 'temperature' is not supported with this model.", "form"),
    (400, "`response_format` json_schema is not supported", "form"),
    (400, "cannot identify the image", "declined"),
    (403, "no access from here", "declined"),
    (422, "something is odd", "declined"),
]


@pytest.mark.parametrize(("status", "message", "kind"), KINDS)
def test_the_kind_is_the_same_in_every_envelope(status, message, kind):
    for body in wrapped(message):
        said = classify(status, body, {})
        assert (said.kind, message[:30] in said.why) == (kind, True), body
    assert classify(status, f"<html><head><title>{message}</title></head></html>", {}).kind == kind
    assert classify(status, message, {}).kind == kind


def test_what_an_error_repeats_of_the_request_says_nothing():
    asked = {"response_format": 1, "messages": "content_filter, context length", "temperature": 2}
    told = {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": asked}]}
    assert classify(422, told, {}).kind == "declined"


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        ({"error": {"message": "Please try again in 5s."}}, {}, 5),
        ({"error": {"message": "Please retry in 34.07s."}}, {}, 34.07),
        ({"error": {"message": "try again in 1m2.5s"}}, {}, 62.5),
        ({"error": {"message": "Please try again in 20ms"}}, {}, 0.02),
        ({"error": {"message": "retry after 12 seconds"}}, {}, 12),
        ({"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "41s"}]}}, {}, 41),
        ({}, {"anthropic-ratelimit-requests-reset": "SOON"}, 0),
        ({}, {"ratelimit-reset": "30"}, 30),
        ({"error": {"message": "no"}}, {"retry-after": "7"}, 7),
    ],
)
def test_how_long_to_wait_is_said_in_many_ways(body, headers, seconds):
    assert classify(429, body, headers).wait == pytest.approx(seconds)


def test_a_reset_may_be_a_time():
    at = time.time() + 50
    for text in (str(at), str(round(at * 1000)), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))):
        assert classify(429, {}, {"x-ratelimit-reset": text}).wait == pytest.approx(50, abs=2), text


@pytest.mark.parametrize(
    "odd", [[], None, "text", 3, {"error": "text"}, {"error": ["a"]}, {"message": {"a": 1}}, {"a": {}}]
)
def test_odd_bodies_are_read(odd):
    assert classify(500, odd, {}).kind == "failed"


@pytest.mark.parametrize(
    ("message", "field", "room"),
    [
        ("max_tokens is too large: 20000. This model supports at most 16384 completion tokens", "max_tokens", 16384),
        # vLLM, where it begins with a context shorter than the settings' max_tokens
        (
            "max_tokens=512 cannot be greater than max_model_len=300. Please request fewer output tokens. "
            "(parameter=max_tokens, value=512)",
            "max_tokens",
            300,
        ),
        (
            "max_completion_tokens=512 cannot be greater than max_model_len=300. Please request fewer output tokens.",
            "max_completion_tokens",
            300,
        ),
        ("max_tokens must be less than or equal to 8192", "max_tokens", 8192),
        ("`max_tokens`: 9000 must not exceed the model's 4096", "max_tokens", 4096),
    ],
)
def test_what_the_server_has_room_for_is_read(message, field, room):
    told = {"error": {"message": message, "type": "BadRequestError", "param": field, "code": 400}}
    said = classify(400, told, {})
    assert (said.kind, said.room) == ("long", room), "it knows the parameter, and has less room"
