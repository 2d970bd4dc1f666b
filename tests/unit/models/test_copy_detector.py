"""SSCD's network, of a file in TorchScript; here one of a few averages stands for it."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.copy_detector import CopyDetector

torch = pytest.importorskip("torch")


class _Averages(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, pixels: "torch.Tensor") -> "torch.Tensor":  # type: ignore[name-defined]
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)


def saved(network: object, file: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(str(file))
    return str(file)


def test_the_vector_is_of_length_1_and_of_the_picture_scaled_to_a_square(tmp_path: Path) -> None:
    detector = CopyDetector(saved(_Averages(), tmp_path / "sscd.pt"))
    picture = Pillow.new("RGB", (90, 30), "white")
    picture.paste((0, 0, 0), (45, 0, 90, 30))
    vector = detector.vector(picture).reshape(3, 2, 2)
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert (vector[:, :, 0] > 0).all()
    assert (vector[:, :, 1] < 0).all()
    assert vector[0, 0, 0] / vector[0, 0, 1] == pytest.approx((1 - 0.485) / -0.485, rel=1e-2)


def test_files_that_are_no_such_network_are_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"nowhere\.pt: No such file.*\n.*TorchScript"):
        CopyDetector(str(tmp_path / "nowhere.pt"))
    (tmp_path / "bad.pt").write_bytes(b"no network")
    picture = Pillow.new("RGB", (9, 9))
    with pytest.raises(EncoderError, match="no network in TorchScript"):
        CopyDetector(str(tmp_path / "bad.pt")).vector(picture)

    class Scalar(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, pixels: "torch.Tensor") -> "torch.Tensor":  # type: ignore[name-defined]
            return pixels.sum()

    class Other(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, pixels: "torch.Tensor") -> "torch.Tensor":  # type: ignore[name-defined]
            return pixels.matmul(torch.zeros(7, 2))

    with pytest.raises(EncoderError, match="failed"):
        CopyDetector(saved(Other(), tmp_path / "other.pt")).vector(picture)
    with pytest.raises(EncoderError, match="gave no vector"):
        CopyDetector(saved(Scalar(), tmp_path / "scalar.pt")).vector(picture)
