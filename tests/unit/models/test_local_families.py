"""Tiny models of the families that are met most, in this process: each has its own way to lay out pictures and text."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from taskgalaxy_ops.models.local.transformers import Chat, Generator
from taskgalaxy_ops.settings import Model

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers", "torchvision"))),
    reason="torch, torchvision and transformers are not installed",
)

TURN = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}PICTURE{% else %}{{ c['text'] }}{% endif %}{% endfor %}</s>{% endfor %}<s>assistant\n"
)
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def tokenizer(folder: Path, **special: str):
    from transformers import PreTrainedTokenizerFast

    from taskgalaxy_ops.finetune import tiny

    tiny._tokenizer().save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder, extra_special_tokens=special)


def internvl(folder: Path):
    """Pictures are cut into up to four tiles, so that a batch's have unlike numbers of them."""
    from transformers import (
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        InternVLVisionConfig,
        LlamaConfig,
    )
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    place, side = "<IMG_CONTEXT>", {"height": 28, "width": 28}
    words = tokenizer(
        folder,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token=place,
        image_token="<image>",
        video_token="<video>",
    )
    vision = InternVLVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=[28, 28],
        patch_size=[14, 14],
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=LlamaConfig(vocab_size=len(words), **TEXT),
        image_token_id=words.convert_tokens_to_ids(place),
        image_seq_length=1,
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(size=side, crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer=words,
        video_processor=InternVLVideoProcessor(size=side),
        image_seq_length=1,
        chat_template=TURN.replace("PICTURE", f"{place}\n"),
    )
    return InternVLForConditionalGeneration(config), processor


def qwen(folder: Path):
    """Pictures keep their shape; places in text and picture are counted in three directions."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    places = {name: f"<|{name}|>" for name in ("image_pad", "video_pad", "vision_start", "vision_end")}
    words = tokenizer(
        folder,
        image_token=places["image_pad"],
        video_token=places["video_pad"],
        start_token=places["vision_start"],
        end_token=places["vision_end"],
    )
    ids = {name: words.convert_tokens_to_ids(token) for name, token in places.items()}
    rope = {"rope_type": "default", "mrope_section": [2, 2, 4], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
        },
        text_config={"vocab_size": len(words), "rope_parameters": rope, **TEXT},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=16 * 28 * 28),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=TURN.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.do_sample = True  # as the published weights have it: it must not count at temperature 0
    model.generation_config.temperature = 0.7
    return model, processor


@pytest.mark.parametrize("family", [internvl, qwen])
def test_a_batch_of_pictures_and_of_text_says_what_each_alone_is_told(family, tmp_path):
    import torch

    torch.manual_seed(0)
    for part in family(tmp_path):
        part.save_pretrained(tmp_path)
    own = {"device": "cpu", "dtype": "float32"}
    generator = Generator(Model(name="t", base_url=f"transformers:{tmp_path}", model="t", in_process=own))
    shown = [Chat("What? " + "word " * 7 * n, (noise(60 + 40 * n, 100),)) for n in range(4)]
    for chats in (shown, [Chat("Hello?"), Chat("Hello, all of you?")]):
        together = generator.generate(chats, room=12, temperature=0)
        assert together == [generator.generate([chat], room=12, temperature=0)[0] for chat in chats]
        assert len({each.prompt_tokens for each in together}) > 1


def noise(width: int, height: int) -> Image.Image:
    return Image.effect_noise((width, height), 80).convert("RGB")
