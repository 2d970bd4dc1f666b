"""The texts that a trainer's tokenizer, template or data loader reads as special tokens; how text is kept free of them.

In a conversation such a text stands for an image that is not there, or ends an answer. The rule is one, for what a
teacher writes, for releases, for training data and for what checkpoints are asked: the outer brackets of a token become
brackets that look alike, ``<s>`` becomes ``‹s›`` and ``[INST]`` becomes ``⟦INST⟧``. So a reader still sees what was
meant, and ``restored`` gives it back. Only whole tokens are changed: ``<img src=a.png>``, ``<b>``, ``<table>`` and
``a < b`` stay as they are.
"""

from __future__ import annotations

import re

# By family. A token stands for itself, as its tokenizer has it; (?i:…) where a data loader does not mind the case.
_ANGLED = {
    "LLaVA, its trainer and most data loaders": r"(?i:\s*/?\s*image\s*)|im_(?:start|end|patch)|image_newline",
    "LLaMA-Factory, ms-swift": r"video|audio|bbox|ref-object",
    "SentencePiece: Llama, Vicuna, Mistral, Yi, Gemma, Phi-3": r"(?i:/?s)|unk|pad|bos|eos|mask|0x[0-9A-F]{2}",
    "ChatML, Qwen, Llama 3, Phi, GLM, Yi, MiniCPM, Falcon": r"\|[^|]{0,40}\|",
    "DeepSeek": r"｜[^｜<>\n]{0,40}｜|image_placeholder|\|?/?(?:ref|det|grounding)\|?",
    "Llama 2": r"</?SYS>",
    "Gemma, PaliGemma": r"(?:start|end)_of_(?:turn|image|audio)|image_soft_token|loc\d{4}|seg\d{3}|unused\d{1,4}",
    "InternVL, Qwen-VL": r"/?(?:img|IMG_CONTEXT|ref|box|quad)|imgpad",
    "InternLM 2, XTuner": r"eo[abhsu]|TOKENS_UNUSED_\d{1,3}",
    "Qwen 2.5": r"/?tool_(?:call|response)",
    "Idefics, SmolVLM": r"fake_token_around_image|end_of_utterance|global-img|row_\d{1,2}_col_\d{1,2}",
    "MiniCPM-V": r"/?(?:slice|unit|point|image_id)",
    "Molmo, Ovis, Kimi, CogVLM": r"im_col|(?:image|video)_(?:atom|pad|token)|/?(?:media|EOI|BOI)",
}
_SQUARE = {
    "Llama 2, Mistral": r"(?i:/?INST)",
    "Mistral, Pixtral": r"IMG(?:_BREAK|_END)?|TOOL_CALLS|/?(?:AVAILABLE_TOOLS|TOOL_RESULTS|SYSTEM_PROMPT|TOOL_CONTENT)",
    "GLM-4": r"gMASK|sMASK",
}
_TOKEN = re.compile(rf"<({'|'.join(_ANGLED.values())})>|\[({'|'.join(_SQUARE.values())})\]")
_NEUTRAL = re.compile(rf"‹({'|'.join(_ANGLED.values())})›|⟦({'|'.join(_SQUARE.values())})⟧")


def neutral(text: str) -> str:
    """The text without special tokens: their brackets become ‹ › and ⟦ ⟧. Applied twice, it changes nothing more."""
    while _TOKEN.search(text):  # again, since one may hold another
        text = _TOKEN.sub(lambda found: f"‹{found[1]}›" if found[2] is None else f"⟦{found[2]}⟧", text)
    return text


def is_neutralised(text: str) -> bool:
    """Whether a text holds a token whose brackets were changed."""
    return _NEUTRAL.search(text) is not None


def restored(text: str) -> str:
    """The text as it was before ``neutral``, for a person to read or a renderer of one's own; no conversation."""
    while _NEUTRAL.search(text):
        text = _NEUTRAL.sub(lambda found: f"<{found[1]}>" if found[2] is None else f"[{found[2]}]", text)
    return text
