"""Special tokens of known trainers are neutralised, and nothing else is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgalaxy_ops.models.special_tokens import is_neutralised, neutral, restored
from taskgalaxy_ops.text import clean

TOKENS = [
    # LLaVA, and what most loaders replace by a picture
    "<image>", "<IMAGE>", "< image >", "</image>", "<im_start>", "<im_end>", "<im_patch>", "<video>", "<audio>",
    "<bbox>",
    # SentencePiece
    "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<mask>",
    # ChatML, Qwen, Llama 3, Phi, GLM
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|image_pad|>", "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>", "<|user|>", "<|assistant|>", "<|end|>", "<|image_1|>", "<|image|>", "<|observation|>",
    # DeepSeek, with full-width bars
    "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<image_placeholder>",
    "<|ref|>",
    # Llama 2, Mistral, Pixtral
    "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[TOOL_CALLS]",
    "[/AVAILABLE_TOOLS]",
    "[SYSTEM_PROMPT]", "[gMASK]",
    # Gemma, PaliGemma
    "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>", "<loc0123>",
    "<seg001>",
    "<unused99>",
    # InternVL, InternLM, Qwen-VL
    "<IMG_CONTEXT>", "<img>", "</img>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "<eoh>", "<tool_call>",
    "</tool_call>",
    # Idefics, SmolVLM, MiniCPM-V
    "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "<row_1_col_2>", "<slice>", "</unit>", "<point>",
]  # fmt: skip

HONEST = [
    "<b>bold</b>", "<p>", "<table><tr><td>1</td></tr></table>", '<img src="a.png">', "<img src=a.png/>", "<br/>",
    "<strong>",
    "<video controls>", '<s class="x">', "<span>", "<image-set>", "<images>", "a < b > c", "p < .05", "1 <| 2", "x | y",
    "[INSTITUTE]", "[IMG 1]", "[1]", "<html>", "<!-- image -->", "List<String>", "vector<int>", "<svg>", "<IMG SRC=x>",
]  # fmt: skip


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_gets_other_brackets_and_can_be_given_back(token):
    text = f"It is {token}, {token}x."
    found = neutral(text)
    assert token not in found and is_neutralised(found)
    assert clean(found) == found, "what is cleaned later stays as it is"
    assert neutral(found) == found and restored(found) == text
    assert len(found) == len(text), "only the brackets change"


@pytest.mark.parametrize("text", HONEST)
def test_what_only_looks_like_a_token_stays(text):
    assert neutral(f"It is {text}.") == f"It is {text}."
    assert not is_neutralised(text)


def test_struck_text_in_html_stays_readable():
    assert neutral("`<s>old</s>` strikes text; `<b>` does not.") == "`‹s›old‹/s›` strikes text; `<b>` does not."


@given(st.lists(st.sampled_from([*TOKENS, *HONEST, "<", ">", "[", "]", " ", "x", "|", "‹"]), max_size=8).map("".join))
def test_no_text_holds_a_token_afterwards(text):
    found = neutral(text)
    assert neutral(found) == found
    assert not any(token in found for token in TOKENS)
