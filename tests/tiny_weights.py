"""A LLaVA-shaped model of random weights that real servers can serve, and whose replies end.

    python tests/tiny_weights.py FOLDER [--context 4096] [--untamed]

Random weights never close a string, a number or a list, not even under a grammar. So one dimension of the hidden state
is held constant, which makes the head's weights on it a bias of each token: under a grammar a string closes after a few
words, a number after a digit, a list as soon as it may. What stands between the quotes is noise that depends on
picture and text. ``untamed``: without that bias, so that replies run until they are cut.

``replies``: whole replies, each one token, for servers without a grammar: the model says one of them and ends.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskgalaxy_ops.finetune import tiny

_WIDTH = 128
_SIDE = 64
_CONSTANT, _REPLIED = 0, 1  # dimensions of the hidden state: always the same; set after a whole reply
_HELD = 8.0  # the value of the constant dimension
_TURN = (
    "<s>{% for message in messages %}{{ message['role'] }}: {% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}\n{% endfor %}assistant: "
)
# Biases of tokens, in logits. Among the tokens that a grammar allows at a place, the highest are said.
_BIASES = {"{": 0.0, "[": 0.0, "}": 0.0, ":": 0.0, '"': 5.0, "]": -8.0, ",": -13.0, "1": -20.0, "0": -21.5, "2": -22.5}
_WORD, _OTHER, _NEVER, _REPLY, _END = 0.0, -24.0, -60.0, 40.0, 120.0


def save(folder: Path, *, context: int = 4096, seed: int = 0, tamed: bool = True, replies: Sequence[str] = ()) -> None:
    """Write model and processor as transformers and vLLM read them."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(seed)
    processor = _processor(replies)
    tokenizer = processor.tokenizer
    shape = {"hidden_size": _WIDTH, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    ends = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(image_size=_SIDE, patch_size=16, projection_dim=64, **shape),
            text_config=LlamaConfig(
                vocab_size=len(tokenizer), max_position_embeddings=context, tie_word_embeddings=False, **shape, **ends
            ),
            image_token_index=processor.image_token_id,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            projector_hidden_act="gelu",
            tie_word_embeddings=False,
        )
    )
    if tamed:
        _tame(model, tokenizer, replies)
    model.generation_config.update(**ends)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    _name_as_vllm_does(folder / "model.safetensors")


def _processor(replies: Sequence[str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    # Words alone: every mark that JSON is made of stays a token of its own, which can have a bias of its own.
    corpus = [" ".join(re.findall(r"[A-Za-z]+", text)) for text in tiny._corpus()]
    tokens.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=1024,
            special_tokens=["<pad>", "<s>", "</s>", tiny.IMAGE],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokens.add_tokens([AddedToken(reply, normalized=False) for reply in replies])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": tiny.IMAGE},
        clean_up_tokenization_spaces=False,
    )
    side = {"height": _SIDE, "width": _SIDE}
    return LlavaProcessor(
        image_processor=LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": _SIDE}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TURN,
    )


def _tame(model: Any, tokenizer: Any, replies: Sequence[str]) -> None:
    """Hold two dimensions of the hidden state, and give each token its bias on them in the head."""
    import torch

    text, head = model.model.language_model, model.lm_head
    held = [_CONSTANT, _REPLIED]
    value = torch.tensor([_HELD, 0.0])
    pictures = model.model.multi_modal_projector.linear_2
    said = {tokenizer.convert_tokens_to_ids(reply) for reply in replies}
    with torch.no_grad():
        text.embed_tokens.weight.normal_(0, 1)
        text.embed_tokens.weight[:, held] = value
        for token in said:
            text.embed_tokens.weight[token, _REPLIED] = _HELD
        pictures.weight[held] = 0
        pictures.bias[held] = value
        for layer in text.layers:
            for out in (layer.self_attn.o_proj, layer.mlp.down_proj):
                out.weight.mul_(4)  # so that what was read before has a say in what is written
                out.weight[held] = 0
        rms = ((_HELD**2 + _WIDTH) / _WIDTH) ** 0.5  # by which the last norm divides, about
        head.weight.normal_(0, 0.1)
        head.weight[:, _REPLIED] = 0
        head.weight[tokenizer.eos_token_id, _REPLIED] = _END * rms / _HELD
        for token in range(len(tokenizer)):
            head.weight[token, _CONSTANT] = _bias(token, tokenizer, said) * rms / _HELD


def _bias(token: int, tokenizer: Any, said: set[int]) -> float:
    if token in said:
        return _REPLY
    if token in tokenizer.all_special_ids:
        return _WORD if token == tokenizer.eos_token_id else _NEVER
    text = tokenizer.decode([token])
    word = text.strip()
    return _BIASES.get(text, _WORD if word.isascii() and word.isalpha() else _OTHER)


def _name_as_vllm_does(file: Path) -> None:
    """Write the vision tower's weights under the names of older transformers, by which vLLM looks for them."""
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    renamed = {
        re.sub(r"vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name): weights[name]
        for name in weights
    }
    save_file(renamed, file, metadata={"format": "pt"})


def main() -> None:
    """Write a model from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--untamed", action="store_true")
    chosen = parser.parse_args()
    save(chosen.folder, context=chosen.context, tamed=not chosen.untamed)


if __name__ == "__main__":
    main()
