"""What servers send in place of a reply: the kind, the wait and the parameter that each body means."""

import time

import pytest

from taskgalaxy_ops.models.refusals import IMAGES, classify, retry_after


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
    (429, "You exceeded your current quota, please check your plan and billing details. Please retry in 5s.", "busy"),
    (403, "You have exceeded the rate limit: rate limit exceeded", "busy"),
    (503, "The request queue is full.", "slow"),
    (400, "Budget has been exceeded! Current cost: 10.2, Max budget: 10.0", "fatal"),
    (400, "You have reached your specified API usage limits. You will regain access on 2027-01-01", "fatal"),
    (400, "API key expired. Please renew the API key.", "fatal"),
    (400, "m is not a valid model ID", "fatal"),
    (400, "Output blocked by content filtering policy", "content"),
    (403, "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE", "content"),
    (400, "Your request was rejected as a result of our safety system.", "content"),
    (400, "The request was rejected because it was considered high risk", "content"),
    (422, "Input validation error: `inputs` must have less than 4096 tokens. Given: 4545", "long"),
    (400, "Your request exceeded model token limit: 262144", "long"),
    (400, "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000", "long"),
    (400, "max_tokens is not the problem: the context length is 4096 tokens", "long"),
    (500, "the request exceeds the available context size. try increasing the context size", "long"),
    (422, "response_format: missing field `value` at line 1 column 4711", "form"),
    (500, "invalid JSON schema in format", "form"),
    (400, "Failed to parse grammar", "form"),
    (400, "Argument not supported on this model: reasoningEffort", "form"),
    (400, "llama3.1:8b does not support thinking", "form"),
    (500, "image input is not supported - hint: you may need to provide the mmproj", "declined"),
    # What is no reason, though it sounds like one.
    (400, "An exception occurred while loading image data for this model", "declined"),
    (400, "Failed to load image or audio file", "declined"),
    (400, "cannot read 'shots/road safety sign.png'", "declined"),
    (400, "cannot open the picture of ocr~credit balance reading", "declined"),
    (400, "no picture for counting~moderate crowds", "declined"),
    (400, "instead of a picture there is a flagged parcel", "declined"),
    (400, "cannot show image~temperature reading at a bus stop", "declined"),
    (400, "unsupported picture: ocr~grammar correction", "declined"),
    (400, "the model sees no such file: image not found", "declined"),
    (400, "under moderate load the throttle lever of the picture is unreadable", "declined"),
    (500, "The safety system is overloaded", "busy"),
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
    "repeated",
    [
        "1 validation error for Request seed Extra inputs are not permitted [type=extra_forbidden, input_value={'a': "
        "'content_filter, context length'}, input_type=dict]",
        "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted', 'input': "
        "{'messages': [{'content': [{'text': 'rate limit'}]}], 'response_format': {}}}, {'type': 'missing', 'loc': "
        "('body', 'x'), 'msg': 'Field required', 'input': 'was flagged'}]",
        "unknown parameter: 'seed' in {'messages': [{'role': 'user', 'content': 'context length, api_key_invalid'}]",
    ],
)
def test_what_a_text_repeats_of_the_request_says_nothing(repeated):
    said = classify(400, {"object": "error", "message": repeated}, {})
    assert (said.kind, said.parameter) == ("form", "seed")


def test_codes_count_where_words_would_not():
    for status in (200 + 302, 400, 500):  # 502: an error within a 200
        assert classify(status, {"error": {"code": "content_filter", "message": "no"}}, {}).kind == "content"
    assert classify(500, {"error": {"message": "our content filter crashed"}}, {}).kind == "failed"
    stop = {"error": {"param": "stop", "message": "Invalid 'stop': array too long. Expected maximum length 4"}}
    assert classify(400, stop, {}).parameter == "stop"
    long = {"error": {"param": "max_tokens", "message": "max_tokens is too large for the context length of 4096"}}
    assert classify(400, long, {}).kind == "long"


def test_what_one_provider_of_a_router_says_is_tried_again():
    routed = {"error": {"message": "Provider returned error", "metadata": {"provider_name": "One", "raw": "not found"}}}
    assert classify(404, routed, {}).kind == "failed"
    assert classify(404, {"error": {"message": "No endpoints found for m."}}, {}).kind == "fatal"
    assert classify(401, routed, {}).kind == "fatal"


def test_a_402_with_a_time_is_a_wait():
    assert classify(402, {"error": {"message": "in-flight budget"}}, {"Retry-After": "3"}).kind == "busy"


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        ({"error": {"message": "Please try again in 5s."}}, {}, 5),
        ({"error": {"message": "Please retry in 34.07s."}}, {}, 34.07),
        ({"error": {"message": "try again in 1m2.5s"}}, {}, 62.5),
        ({"error": {"message": "Please try again in 20ms"}}, {}, 0.02),
        ({"error": {"message": "retry after 12 seconds"}}, {}, 12),
        ({"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "41s"}]}}, {}, 41),
        ({"error": {"message": 'Error: {\\"error\\": {\\"retryDelay\\": \\"12.5s\\"'}}, {}, 12.5),
        ({}, {"anthropic-ratelimit-requests-reset": "SOON"}, 0),
        ({}, {"Retry-After": "2", "anthropic-ratelimit-requests-reset": "2999-01-01T00:00:00Z"}, 2),
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
    ("message", "room"),
    [
        ("max_tokens is too large: 20000. This model supports at most 16384 completion tokens", 16384),
        ("max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for m", 8192),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
        ("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 2048]", 2048),
        ("`max_tokens` must be less than or equal to `32768`, the maximum value for `max_tokens`", 32768),
        ("max_tokens=512 cannot be greater than max_model_len=300. Please request fewer output tokens.", 300),
        ("max_completion_tokens=512 cannot be greater than max_model_len=300. (parameter=max_completion_tokens)", 300),
        (
            "'max_tokens' is too large: 8192. This model's maximum context length is 8192 tokens (8192 > 8192 - 1210).",
            0,
        ),
    ],
)
def test_what_the_server_has_room_for_is_read(message, room):
    said = classify(400, {"error": {"message": message, "param": "max_tokens"}}, {})
    assert (said.kind, said.room) == ("long", room)


@pytest.mark.parametrize(
    "said",
    [
        "At most 1 image(s) may be provided in one prompt.",
        "Too many images in request. Max is 1.",
        "this model only supports one image while more than one image requested",
        "The maximum number of images allowed per request is 3",
        "This model supports up to 1 image per request.",
    ],
)
def test_a_model_that_takes_fewer_images_is_told_from_one_that_minds_the_picture(said):
    for body in wrapped(said):
        found = classify(400, body, {})
        assert (found.kind, found.parameter) == ("form", IMAGES), body


@pytest.mark.parametrize("said", ["The image shows at most 3 people", "image is too small", "invalid image format"])
def test_other_words_on_images_are_about_the_picture(said):
    assert classify(400, {"error": {"message": said}}, {}).kind == "declined"
