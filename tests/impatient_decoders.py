"""Imported by the first decoding process, lets it end soon after its last worker."""

from taskgalaxy_ops.sources import decoder_process

decoder_process._SPARE_SECONDS = 0.05
