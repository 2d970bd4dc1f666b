"""A CLIP model of random weights that open_clip loads from a file."""

from __future__ import annotations

import json
from pathlib import Path

NAME = "tiny-clip"
_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def tiny_clip(folder: Path) -> tuple[str, str]:
    """The model's name and its checkpoint file; the same weights each time."""
    import open_clip
    import torch

    (folder / f"{NAME}.json").write_text(json.dumps(_CONFIG), encoding="utf-8")
    open_clip.add_model_config(folder)
    torch.manual_seed(5)
    torch.save(open_clip.create_model(NAME).state_dict(), folder / "tiny.pt")
    return NAME, str(folder / "tiny.pt")
