"""A LLaVA-shaped model of under two million parameters, made from a configuration, that two cores can train.

Vision tower (CLIP's), two-layer projector and language model (Llama's) are joined as in LLaVA-v1.5: features of the
tower's layer before the last, without its class token, pass through the projector into the text. Its weights are
random; its tokens are learnt from the package's own texts by a byte-level BPE, so that the same code gives the same
model.
"""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops.hashing import fingerprint

TINY = "tiny"
IMAGE = "<image>"
_SPECIAL = ("<pad>", "<s>", "</s>", IMAGE)
_VOCABULARY = 1024
_SIDE = 64  # pixels
_PATCH = 16
_INIT = 0.06  # the usual 0.02 suits widths of thousands: at 128, training ignores the image for hundreds of steps
_VERSION = 1  # one more whenever the same seed gives another model
_SHAPE = {
    "vision": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4},
    "text": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4},
}
# A turn as LLaVA writes it: the image first, then what is asked, and what is answered up to the end token.
_TEMPLATE = (
    "<s>{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %} ASSISTANT:"
    "{% else %} {% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{{ message['content'][0]['text'] }}{% endif %}</s>{% endif %}{% endfor %}"
)


@cache  # the corpus takes a quarter of a second to read, and each look at a fine-tune asks for this
def revision(seed: int) -> str:
    """Identity of the untrained model: its shape, the corpus of its tokens, and the seed of its weights."""
    return fingerprint("tiny", {"version": _VERSION, "shape": _SHAPE, "side": _SIDE, "seed": seed, "corpus": _corpus()})


def save_tiny(folder: Path, seed: int = 0) -> None:
    """Write model and processor as ``from_pretrained`` reads them."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    processor = _processor()
    tokenizer = processor.tokenizer
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=_SIDE, patch_size=_PATCH, projection_dim=64, initializer_range=_INIT, **_SHAPE["vision"]
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            initializer_range=_INIT,
            **_SHAPE["text"],
        ),
        image_token_index=processor.image_token_id,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _processor() -> Any:
    from transformers import LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    images = LlavaImageProcessorPil(
        do_pad=True,  # to a square, as LLaVA-v1.5 does
        size={"shortest_edge": _SIDE},
        crop_size={"height": _SIDE, "width": _SIDE},
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=_tokenizer(),
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the tower's class token, which "default" takes away again
        chat_template=_TEMPLATE,
    )


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokens.train_from_iterator(_corpus(), trainer)
    pad, begin, end, _ = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token=pad,
        bos_token=begin,
        eos_token=end,
        # A special token, because an ordinary word would be cut into pieces, which the image's features cannot replace.
        extra_special_tokens={"image_token": IMAGE},
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def _corpus() -> list[str]:
    """Texts like those that the model will read: questions, words of answers, labels of task types, the alphabet."""
    package = Path(__file__).resolve().parents[1]
    texts: list[str] = [string.printable]

    def collect(value: Any) -> None:
        if isinstance(value, str):
            texts.append(" " + value)
        elif isinstance(value, dict):
            for key, each in value.items():
                texts.append(" " + str(key).replace("~", " "))
                collect(each)
        elif isinstance(value, list):
            for each in value:
                collect(each)

    for file in ("simulator/templates.yaml", "simulator/vocabulary.yaml", "taxonomy/seeds.yaml"):
        collect(yaml.safe_load((package / file).read_text(encoding="utf-8")))
    return texts
