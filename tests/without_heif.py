"""Imported by a decoding process, takes HEIC's decoder away, as where the extra ``heif`` is not installed."""

from PIL import Image

if "HEIF" in Image.OPEN:
    del Image.OPEN["HEIF"]
    Image.ID.remove("HEIF")
