"""Models in this process: a tiny one, made from a configuration, behind the seam that the gateway asks through."""

import asyncio
import importlib.util
import json
import subprocess
import sys
import threading

import pytest
import tiny_weights
from PIL import Image

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.generation.stages.filter import filter_template
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.inference.spending import RunBudget, ShardBudget
from taskgalaxy_ops.models.http import read
from taskgalaxy_ops.models.local import server
from taskgalaxy_ops.models.local.server import InProcessModel, InProcessModels
from taskgalaxy_ops.models.local.transformers import Chat, Generator, TooLongError, Written
from taskgalaxy_ops.models.rendering import render
from taskgalaxy_ops.operations import doctor
from taskgalaxy_ops.settings import Model, Settings
from taskgalaxy_ops.storage.folder import FolderStore
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.ledger import NANO, Caps, Ledger

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers"))), reason="torch and transformers are not installed"
)

IMAGE = "ab" * 32
ANSWER = {"verdicts": [{"index": 1, "fits": True, "reason": "a red square"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights that know nothing."""
    from taskgalaxy_ops.finetune.tiny import save_tiny

    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def taught(folder, tmp_path_factory):
    """Weights that answer one question about a red square rightly, and know nothing else."""
    import torch

    model = local(folder)
    generator = Generator(model)
    processor, net = generator._processor, generator._model.train()
    text = server._shown(body(asked(model)))[0]
    turn = [
        {"role": "user", "content": [{"type": "image", "image": square()}, {"type": "text", "text": text}]},
        {"role": "assistant", "content": [{"type": "text", "text": json.dumps(ANSWER)}]},
    ]
    batch = processor.apply_chat_template([turn], tokenize=True, return_dict=True, return_tensors="pt")
    labels = batch["input_ids"].clone()
    labels[:, : length(generator, Chat(text, (square(),)))] = -100
    steps = torch.optim.AdamW(net.parameters(), 2e-3)
    for _ in range(200):
        loss = net(**batch, labels=labels).loss
        if loss < 0.02:
            break
        steps.zero_grad()
        loss.backward()
        steps.step()
    taught = tmp_path_factory.mktemp("taught")
    net.save_pretrained(taught)
    processor.save_pretrained(taught)
    return taught


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weak")
    tiny_weights.save(folder, context=2048)
    return folder


@pytest.fixture
def weak(drawn):
    """Weights that know nothing, and close a string, a number or a list where a grammar lets them."""
    import torch

    torch.manual_seed(0)  # what they say is sampled
    return drawn


def local(folder, **fields):
    own = {"device": "cpu", "dtype": "float32", "wait_seconds": 0.2} | fields.pop("in_process", {})
    return Model(
        **{"name": "t", "base_url": f"transformers:{folder}", "model": "tiny", "max_tokens": 64} | fields,
        in_process=own,
    )


def square(colour="red", size=(48, 64)):
    return Image.new("RGB", size, colour)


def data_url(image):
    import io

    out = io.BytesIO()
    image.save(out, "PNG")
    return render(out.getvalue(), 64, 90)


def asked(model, types=("a~0",)):
    """A question with its units."""
    question = filter_template("Decide.", model)
    return question, [question.unit(IMAGE, {"task_type": each}) for each in types]


def body(question_and_units, room=64, **fields):
    question, units = question_and_units
    parts = [{"type": "text", "text": question.text(units)}]
    parts.append({"type": "image_url", "image_url": {"url": data_url(square())}})
    return {"model": "tiny", "messages": [{"role": "user", "content": parts}], "max_tokens": room} | fields


def said(text, image=None, **fields):
    """A body of one message."""
    parts = [{"type": "text", "text": text}]
    if image is not None:
        parts.append({"type": "image_url", "image_url": {"url": data_url(image)}})
    return {"model": "tiny", "messages": [{"role": "user", "content": parts}], "max_tokens": 12} | fields


def length(generator, chat):
    """Tokens of a chat's prompt, by itself."""
    return generator._inputs([chat])["input_ids"].shape[1]


def completed(model, *bodies):
    """The replies to requests that are sent at once; a reply may be an exception."""

    async def run():
        try:
            return await asyncio.gather(*(model.complete(each) for each in bodies), return_exceptions=True)
        finally:
            await model.close()

    return asyncio.run(run())


# What is written


def test_a_batch_says_what_each_chat_alone_is_told(folder):
    generator = Generator(local(folder))
    colours = ("red", "green", "blue", "white", "black")
    chats = [Chat("What is it? " + "look " * 9 * n, (square(c, (40 + 9 * n, 64)),)) for n, c in enumerate(colours)]
    together = generator.generate(chats, room=20, temperature=0)
    assert together == [generator.generate([chat], room=20, temperature=0)[0] for chat in chats]
    assert together == generator.generate(chats, room=20, temperature=0), "greedy"
    assert len({each.prompt_tokens for each in together}) == len(chats), "of unlike lengths"
    assert [each.prompt_tokens for each in together] == [length(generator, chat) for chat in chats]
    assert all(each.cut and each.completion_tokens == 20 for each in together)


def test_a_temperature_draws(folder):
    generator = Generator(local(folder))
    drawn = generator.generate([Chat("What is it?")] * 6, room=12, temperature=1.5)
    assert len({each.text for each in drawn}) > 1


def test_an_answer_ends_where_the_model_ends_it(taught):
    generator = Generator(local(taught))
    text = server._shown(body(asked(local(taught))))[0]
    right, other = generator.generate([Chat(text, (square(),)), Chat("Other?", (square(),))], room=64, temperature=0)
    assert json.loads(right.text) == ANSWER
    tokens = generator._tokenizer(json.dumps(ANSWER))["input_ids"]
    assert not right.cut and abs(right.completion_tokens - len(tokens)) <= 2, "text, a blank before it, and its end"
    assert other != right
    (short,) = generator.generate([Chat(text, (square(),))], room=5, temperature=0)
    assert short.cut and short.completion_tokens == 5


def test_what_exceeds_the_context_is_told_and_takes_no_room_from_others(folder):
    generator = Generator(local(folder))
    long, tight, short = Chat("word " * 2000), Chat("word " * 900), Chat("word")
    found = generator.generate([long, short, tight], room=200, temperature=0)
    assert isinstance(found[0], TooLongError) and "context is 1024" in str(found[0])
    left = 1024 - length(generator, tight)
    assert 0 < left < 200, "or this test shows nothing"
    assert found[2].completion_tokens == left
    assert found[1] == generator.generate([short], room=200, temperature=0)[0]


@pytest.mark.parametrize("words", ["CUDA out of memory. Tried to allocate 2 GiB", "MPS backend out of memory", "mine"])
def test_a_batch_without_room_is_answered_in_halves(folder, monkeypatch, words):
    generator = Generator(local(folder))
    chats = [Chat(f"What is {n}?") for n in range(7)]
    right = generator.generate(chats, room=6, temperature=0)
    generate, sizes = generator._model.generate, []

    def little(**inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise MemoryError if words == "mine" else RuntimeError(words)
        return generate(**inputs)

    monkeypatch.setattr(generator._model, "generate", little)
    assert generator.generate(chats, room=6, temperature=0) == right
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert generator.most == 1, "it is not tried again"


def test_where_one_chat_has_no_room_it_is_said(folder, monkeypatch):
    model = InProcessModel(local(folder), lambda model: cramped(Generator(model), monkeypatch))
    (found,) = completed(model, said("Hello?"))
    why = found["error"]["message"]
    assert "no room for a single request" in why and "Lower image_side" in why
    assert read(found, None).kind == "failed"


def cramped(generator, monkeypatch):
    def generate(**inputs):
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(generator._model, "generate", generate)
    return generator


# The seam


def test_the_reply_is_the_protocols(folder):
    (found,) = completed(InProcessModel(local(folder)), said("What is it?", square()))
    assert found["object"] == "chat.completion" and found["model"] == "tiny" and found["id"]
    (choice,) = found["choices"]
    assert choice["finish_reason"] == "length" and choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)
    usage = found["usage"]
    assert usage["completion_tokens"] == 12 and usage["total_tokens"] == usage["prompt_tokens"] + 12
    assert usage["prompt_tokens"] == length(Generator(local(folder)), Chat("What is it?", (square(),)))
    json.dumps(found)


def test_the_schema_and_the_systems_words_are_in_the_prompt():
    question, units = asked(local("/x"))
    schema = {"name": "filter", "strict": True, "schema": question.json_schema()}
    request = body((question, units), response_format={"type": "json_schema", "json_schema": schema})
    request["messages"].insert(0, {"role": "system", "content": "Mend it."})
    text, pictures = server._shown(request)
    first, rest = text.split("\n\n", 1)
    assert first == "Mend it." and rest.startswith(question.text(units))
    assert json.loads(text.partition("schema: ")[2]) == question.json_schema()
    assert len(pictures) == 1


class Slow:
    """A generator that takes note of its batches, and answers when it is let."""

    def __init__(self, most=4):
        self.most = most
        self.batches = []
        self.threads = set()
        self.go = threading.Event()
        self.fails = lambda chat: False
        self.closed = False

    def generate(self, chats, *, room, temperature):
        self.batches.append(([chat.text for chat in chats], room, temperature))
        self.threads.add(threading.current_thread().name)
        assert self.go.wait(10)
        if any(map(self.fails, chats)):
            raise RuntimeError("device-side assert")
        return [Written(chat.text.upper(), 1, 1, cut=False) for chat in chats]

    def stop(self):
        self.go.set()

    def close(self):
        self.closed = True


def test_requests_share_batches_of_their_kind_in_one_thread():
    slow = Slow()
    model = InProcessModel(local("/x", in_process={"wait_seconds": 0.05}), lambda model: slow)
    slow.go.set()
    words = [f"w{n}" for n in range(6)]
    found = completed(
        model,
        *(said(word) for word in words),
        said("seen", square()),
        said("roomy", max_tokens=99),
        said("drawn", temperature=0.5),
        {**said("newer"), "max_tokens": None, "max_completion_tokens": 12},
    )
    assert [each["choices"][0]["message"]["content"] for each in found] == [
        *map(str.upper, words),
        "SEEN",
        "ROOMY",
        "DRAWN",
        "NEWER",
    ]
    assert slow.batches == [
        (words[:4], 12, 0.0),
        ([*words[4:], "newer"], 12, 0.0),
        (["seen"], 12, 0.0),
        (["roomy"], 99, 0.0),
        (["drawn"], 12, 0.5),
    ]
    assert len(slow.threads) == 1 and threading.main_thread().name not in slow.threads
    assert slow.closed


def test_what_comes_while_a_batch_is_answered_makes_the_next():
    slow = Slow()
    model = InProcessModel(local("/x", in_process={"wait_seconds": 0}), lambda model: slow)

    async def run():
        first = asyncio.create_task(model.complete(said("first")))
        while not slow.batches:
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(model.complete(said(word))) for word in "abc"]
        gone = asyncio.create_task(model.complete(said("gone")))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0)
        slow.go.set()
        await asyncio.gather(first, *others)
        await model.close()

    asyncio.run(run())
    assert [batch for batch, _, _ in slow.batches] == [["first"], ["a", "b", "c"]], "and nobody waits for what is gone"


def test_one_bad_request_sinks_no_other():
    slow = Slow()
    slow.go.set()
    slow.fails = lambda chat: chat.text == "bad"
    model = InProcessModel(local("/x"), lambda model: slow)
    good, bad, fine = completed(model, said("good"), said("bad"), said("fine"))
    assert good["choices"][0]["message"]["content"] == "GOOD" and fine["choices"][0]["message"]["content"] == "FINE"
    assert "RuntimeError: device-side assert" in bad["error"]["message"]
    assert read(bad, None).kind == "failed", "the gateway tries it again, and gives no model up for it"


def test_a_picture_by_url_is_not_fetched(folder):
    request = said("What is it?", square())
    request["messages"][0]["content"][1]["image_url"]["url"] = "https://example.org/x.jpg"
    (found,) = completed(InProcessModel(local(folder)), request)
    assert "data URLs alone" in found["error"]["message"]


def test_closing_ends_what_is_being_generated(folder):
    model = InProcessModel(local(folder))

    async def run():
        waiting = asyncio.create_task(model.complete(said("What is it?", max_tokens=900)))
        await model.ready()
        await asyncio.sleep(0.3)
        await model.close()
        assert (await asyncio.gather(waiting, return_exceptions=True))[0].__class__ is asyncio.CancelledError

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_request_that_is_too_long_is_told_as_servers_tell_it(folder):
    long, short = said("word " * 2000), said("What is it?")
    found, fine = completed(InProcessModel(local(folder)), long, short)
    assert found["error"]["code"] == "context_length_exceeded" and "context is 1024" in found["error"]["message"]
    assert read(found, None).kind == "long", "so that fewer units are asked for at once"
    assert read(fine, None).kind == "served"


def test_models_of_the_same_weights_share_them(folder):
    models = InProcessModels()
    first = models.of(local(folder))
    assert models.of(local(folder, name="another", temperature=0.5)) is first
    assert models.of(local(folder, revision="2")) is not first


# What is missing


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (local("/no/such/folder"), r"there is no folder /no/such/folder on this worker\. Mount it"),
        (local("/", in_process={"device": "cuda:7"}), r"this worker has no cuda:7\. Set in_process\.device"),
    ],
)
def test_what_cannot_be_loaded_is_named(model, words):
    with pytest.raises(ModelError, match=words) as caught:
        Generator(model)
    assert "model 't' (transformers:/" in str(caught.value)


def test_a_folder_that_holds_no_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=rf"transformers:{tmp_path}\): transformers cannot load it .*docs/models\.md"):
        Generator(local(tmp_path))


def test_weights_without_a_chat_template_are_named(folder, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        Generator(local(bare))


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"needs torch\. Run pip install 'taskgalaxy-ops\[train\]'"):
        Generator(local("/x"))


def test_the_gateway_loads_torch_with_the_first_request_alone():
    code = "import sys, taskgalaxy_ops.inference.gateway; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Held to a schema

PLAIN = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
VOTES = {
    "type": "object",
    "properties": {
        "votes": {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {"index": {"type": "integer", "enum": [1, 2]}, "vote": {"enum": [0, 1]}},
                "required": ["index", "vote"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["votes"],
    "additionalProperties": False,
}


def held(schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def texts(folder, *bodies):
    return [each["choices"][0]["message"]["content"] for each in completed(InProcessModel(local(folder)), *bodies)]


def test_weights_that_know_nothing_answer_in_form(weak):
    asked_for = [said("What is it?", square(), temperature=0.7, max_tokens=200, **held(VOTES)) for _ in range(4)]
    for text in texts(weak, *asked_for):
        votes = json.loads(text)["votes"]
        assert [set(vote) for vote in votes] == [{"index", "vote"}] * 2
        assert all(vote["vote"] in {0, 1} and vote["index"] in {1, 2} for vote in votes)


def test_requests_of_a_batch_are_each_held_to_their_own_schema(weak):
    kinds = (held(VOTES), held(PLAIN), {}, {"response_format": {"type": "json_object"}})
    bodies = [said("What is it?", temperature=0.7, max_tokens=120, **kind) for kind in kinds]
    votes, word, free, any_object = texts(weak, *bodies)
    assert json.loads(votes)["votes"] and isinstance(json.loads(word)["word"], str)
    assert any_object.startswith("{") and not free.startswith("{")


def test_what_ends_early_is_not_written_on(weak):
    kinds = (held({"type": "object", "additionalProperties": False}), held(VOTES))
    short, long = texts(weak, *(said("What is it?", temperature=0.7, max_tokens=200, **kind) for kind in kinds))
    assert json.loads(short) == {} and json.loads(long)["votes"]


def test_a_backslash_is_written_as_one(weak):
    """LaTeX in JSON: of "\\frac", the escape for a form feed is not allowed."""
    grammars = Generator(local(weak))._grammars
    tokens = Generator(local(weak))._tokenizer
    for text, fits in ((r'{"word":"\\frac"}', True), (r'{"word":"\frac"}', False), (r'{"word":"a\nb"}', True)):
        matcher = grammars.matcher(PLAIN | {"additionalProperties": False})
        assert all(map(matcher.consume_token, tokens(text, add_special_tokens=False)["input_ids"])) == fits


def test_a_schema_that_cannot_be_enforced_stands_in_the_prompt_alone(weak, caplog):
    hard = {"type": "object", "properties": {"word": {"type": "string", "pattern": "(?=a)"}}, "required": ["word"]}
    (text,) = texts(weak, said("What is it?", temperature=0.7, **held(hard)))
    assert text and "cannot enforce a schema" in caplog.text


def test_without_the_library_the_prompt_alone_asks_for_the_schema(weak, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    (text,) = texts(weak, said("What is it?", temperature=0.7, **held(VOTES)))
    assert text and not text.startswith("{")
    assert "llguidance is not installed" in caplog.text


# Through the gateway


def test_weights_that_know_nothing_answer_in_form_through_the_gateway(weak, tmp_path):
    answers, *_ = ask(tmp_path, local(weak, temperature=0.7, max_tokens=600), ("a~0", "a~1"))
    assert [answer.terminal for answer in answers] == [None, None]
    assert all(isinstance(answer.value["fits"], bool) for answer in answers)


def ask(folder, model, types):
    """What the journal holds once a gateway has asked; and the gateway."""
    store = FolderStore(folder)
    ledger = Ledger(store, Caps(NANO, 100))
    journal = Journal(store, "h")
    gateway = Gateway()
    question, units = asked(model, types)

    async def run():
        shard_budget = ShardBudget(RunBudget(ledger), "h", 8)
        context = CallContext(journal, shard_budget, lambda image: data_url(square()), lambda: None)
        try:
            await gateway.ask(question, units, context)
        finally:
            await gateway.aclose()
            await shard_budget.close()
            journal.flush()

    asyncio.run(run())
    return [journal.answers.get(unit.key) for unit in units], list(journal.replies()), gateway, ledger


def test_a_right_reply_answers_its_unit(taught, tmp_path):
    (answer,), (reply,), gateway, _ = ask(tmp_path, local(taught, structured="text"), ("a~0",))
    assert answer.value == {"fits": True, "reason": "a red square"}
    assert reply["model"] == "t" and reply["cost"] == 0 and not reply["simulated"]
    assert reply["usage"]["completion_tokens"] == gateway.usage.completion_tokens > 0
    assert reply["raw"]["choices"][0]["finish_reason"] == "stop"


def test_what_knows_nothing_is_left_alone_and_its_units_stay_pending(folder, tmp_path):
    answers, replies, gateway, _ = ask(tmp_path, local(folder, max_tokens=16, repairs=1), ("a~0", "a~1"))
    assert answers == [None, None]
    assert "hold no usable answer" in gateway.usage.unavailable["t"]
    asked = [reply for reply in replies if reply["units"]]
    assert [reply["raw"]["choices"][0]["finish_reason"] for reply in asked] == ["length"] * 2
    rooms = [reply["usage"]["completion_tokens"] for reply in asked]
    assert rooms == [16, 32], "a cut reply is asked for again with more room"


def test_a_context_in_which_nothing_fits_is_the_models_fault_and_said(tmp_path):
    tiny_weights.save(tmp_path / "short", context=64)
    answers, _, gateway, _ = ask(tmp_path / "store", local(tmp_path / "short"), ("a~0", "a~1"))
    assert answers == [None, None], "they wait for a longer context"
    why = gateway.usage.unavailable["t"]
    assert "do not fit its context" in why and "the model's context is 64" in why and "usable answer" not in why


def test_a_model_that_is_not_there_is_left_alone_and_costs_no_call(tmp_path):
    answers, replies, gateway, ledger = ask(tmp_path, local("/no/such/folder"), ("a~0",))
    assert answers == [None] and replies == []
    assert "there is no folder /no/such/folder" in gateway.usage.unavailable["t"]
    assert ledger.spent().calls == 0


def test_the_doctor_loads_it_and_says_so(folder):
    (weak, *_) = doctor.models(settings_of(local(folder, max_tokens=16, repairs=0)))
    assert not weak.fine and "no usable answer" in weak.detail, "it loads, and knows nothing"
    (missing, *_) = doctor.models(settings_of(local("/no/such/folder")))
    assert not missing.fine and "there is no folder /no/such/folder" in missing.detail


def test_the_doctor_loads_shared_weights_once_and_finds_them_in_form(weak, monkeypatch):
    loaded, load = [], Generator.__init__
    monkeypatch.setattr(Generator, "__init__", lambda self, model: loaded.append(model.name) or load(self, model))
    teacher, judge = (local(weak, name=name, temperature=0.7, max_tokens=600) for name in ("teacher", "judge"))
    findings = list(doctor.models(Settings(teacher=teacher, judges=(judge,), vote={"quorum": 1})))
    assert [each.what for each in findings] == ["model teacher", "model judge"]
    assert all(each.fine for each in findings), findings
    assert loaded == ["teacher"]


def settings_of(model):
    return Settings(teacher=model, judges=(model,), vote={"quorum": 1})
