"""How fast embed and match run on this machine's GPUs, and what holds them back: decoding or the network.

    python -m benchmarks.gpu_match [--model ViT-L-14] [--images 4096] [--device cuda:0] [--precision bf16] [--compiled]

It takes the library's own way (``encoder.decode: device``), with an open_clip network of seeded random weights on all
GPUs that are visible, and prints images a second: of the whole, of decoding alone, of the network alone. With
``--device cpu`` the same runs on processors. Figures go to ``build/bench/gpu_match.jsonl``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks import matching, running
from benchmarks import matching_sides as sides
from benchmarks.figures import Book, Figure
from taskgalaxy_ops.models.encoders.base import DeviceEncoder, EncoderOptions, PreparingEncoder, Recipe, cores

_ALONE_SECONDS = 5.0


def decode_alone(encoder: PreparingEncoder, raws: Sequence[bytes]) -> float:
    """Images a second of decoding alone, by the processes or threads that a run decodes with."""
    if isinstance(encoder, DeviceEncoder):
        with ProcessPoolExecutor(cores(), get_context("spawn")) as processes:
            list(processes.map(encoder.preparer, raws[: cores()]))  # they start with the first
            began = time.monotonic()
            list(processes.map(encoder.preparer, raws, chunksize=4))
            return len(raws) / (time.monotonic() - began)
    with ThreadPoolExecutor(cores()) as threads:
        began = time.monotonic()
        list(threads.map(encoder.prepare, raws))
        return len(raws) / (time.monotonic() - began)


def network_alone(encoder: PreparingEncoder, raws: Sequence[bytes]) -> float:
    """Images a second of the network alone, resizing on the device included, on all GPUs."""
    batch = [encoder.prepare(raw) for raw in raws[: encoder.batch]]
    lanes = encoder.lanes if isinstance(encoder, DeviceEncoder) else 1
    with ThreadPoolExecutor(lanes) as threads:
        list(threads.map(encoder.encode_prepared, [batch] * lanes))  # the first time compiles, and takes longer
        began, count = time.monotonic(), 0
        while (seconds := time.monotonic() - began) < _ALONE_SECONDS or not count:
            list(threads.map(encoder.encode_prepared, [batch] * lanes * 4))
            count += len(batch) * lanes * 4
        seconds = time.monotonic() - began
    return count / seconds


def measure(folder: Path, book: Book, chosen: argparse.Namespace) -> None:
    """Measure the whole and its parts, and report them as one figure."""
    precision = None if chosen.precision == "fp32" else chosen.precision
    options = EncoderOptions(
        model=chosen.model,
        pretrained=str(sides.weights(folder, chosen.model)),
        recipe=Recipe(None, precision, "device"),
        device=chosen.device,
        compiled=chosen.compiled,
    )
    encoder = sides.Clip(options)
    store = matching.opened(folder, chosen.images, 512)
    files = {claim.image: claim.file for claim in store.registry.claims()}
    source = Path(store.settings.sources["images"].location)
    raws = [(source / file).read_bytes() for file in list(files.values())[: max(encoder.batch, 512)]]
    network, decode = network_alone(encoder, raws), decode_alone(encoder, raws)
    began = time.monotonic()
    sides.product(sides.using(store, encoder), store.registry.shards(), files)
    whole = len(files) / (time.monotonic() - began)
    detail = {
        "whole": round(whole, 1),
        "decode": round(decode, 1),
        "network": round(network, 1),
        "bound": "decode-bound" if decode < network else "encode-bound",
        "of_slower_part": round(whole / min(decode, network), 3),
        "model": chosen.model,
        "precision": chosen.precision,
        "compiled": chosen.compiled,
        "device": encoder.places,
        "images": len(files),
    }
    book.add(Figure("gpu_match.of_network", round(whole / network, 4), None, "higher", detail))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure once, as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-L-14", help="one of open_clip's; default: %(default)s")
    parser.add_argument("--images", type=int, default=4096, help="default: %(default)s")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: all GPUs, else the processor")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16", help="default: %(default)s")
    parser.add_argument("--compiled", action="store_true", help="by torch.compile")
    with running.folder("gpu_match", {}, ()) as folder:
        measure(folder, Book("gpu_match"), parser.parse_args(arguments))


if __name__ == "__main__":
    main()
