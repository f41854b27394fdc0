"""An extraction of videos from end to end against its slower stage alone: do decoding and encoding overlap?

Three passes take turns in each round, over the same clips (:mod:`benchmarks.clips`): decoding alone in the pool's
processes, encoding alone from frames in memory, and the whole extraction into a new store. The efficiency is the time
of the slower stage alone over that of the whole; 1 would be a perfect overlap. Times are by the clock, so an idle
machine with a core for each process is assumed; the figures are medians, and the load is printed.

``device`` stands in for a GPU: it waits, without using the processor, as long as decoding takes (``--balance`` times),
and returns vectors of VideoMAE base's shape. ``videomae`` is the real encoder at toy size on this processor.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.clips import make_all
from extractors import registry
from extractors.extract import Contents, ExtractReport, extract_visual, hash_media, plan_extraction
from extractors.frames import FrameBatch
from extractors.lanes import Feature
from extractors.pool import DecodePool
from extractors.spec import EncodedBatch, Encoder
from extractors.views import Views
from feature_store.store import FeatureStore

SAMPLING = {"n": 5, "fps": 1.0, "decoder": "planned"}


class StandIn:
    """Waits instead of computing.

    Attributes:
        spec: That of the encoder whose place it takes.
        batch_size: As of that encoder.
        settings: As of that encoder.
        seconds_per_row: How long to wait.
    """

    def __init__(self, encoder: Any, seconds_per_row: float) -> None:
        self.spec, self.batch_size, self.settings = encoder.spec, encoder.batch_size, encoder.settings
        self.seconds_per_row = seconds_per_row

    def encode(self, batch: np.ndarray, /) -> EncodedBatch:
        """Ones of VideoMAE base's shape."""
        time.sleep(self.seconds_per_row * len(batch))
        return EncodedBatch(np.ones((len(batch), 768), np.float32), np.ones((len(batch), 5, 768), np.float32))


def clock(run: Callable[[], Any]) -> float:
    """Seconds by the clock."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def decode(pool: DecodePool, files: Mapping[str, Path], transform: Any) -> dict[str, np.ndarray]:
    """Frames of all files by the pool."""
    outcomes = dict(pool.map(files.items(), transform=transform, **SAMPLING))
    return {name: outcome.data for name, outcome in outcomes.items() if isinstance(outcome, FrameBatch)}


def encode(encoder: Encoder, frames: Mapping[str, np.ndarray]) -> None:
    """All frames, in batches."""
    rows = list(frames.values())
    for start in range(0, len(rows), encoder.batch_size):
        encoder.encode(np.stack(rows[start : start + encoder.batch_size]))


def extract(pool: DecodePool, files: Mapping[str, Path], encoder: Encoder, contents: Contents) -> ExtractReport:
    """The whole, into a new store."""
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.open(Path(folder) / "clips" / encoder.spec.name, create=True)
        plan = plan_extraction(encoder.spec, contents, store)
        feature = Feature(encoder.spec, store=store, plan=plan, shard_size=1024, factory=lambda: encoder)
        return extract_visual(files, [feature], contents=contents, pool=pool)[0]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--balance", type=float, default=1.0, help="the stand-in's time as a multiple of decoding's")
    parser.add_argument("--clips", type=int, help="only so many of the clips")
    parser.add_argument("--encoders", nargs="+", choices=["device", "videomae"], default=["device", "videomae"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = {clip.name: clip.path for clip in make_all()[: options.clips]}
    contents = hash_media(files)
    with tempfile.TemporaryDirectory() as folder, DecodePool(options.workers) as pool:
        toy: Any = registry.build("videomae", {"checkpoint": "tiny"}, toy_root=Path(folder))
        views = Views((toy.settings.transform,))  # what the extraction asks for: the processes are kept for it
        frames = decode(pool, files, views)  # starts the processes, and warms the file cache
        alone = clock(lambda: decode(pool, files, views))
        encoders: dict[str, Any] = {"device": StandIn(toy, options.balance * alone / len(frames)), "videomae": toy}
        encoders = {name: encoders[name] for name in options.encoders}
        seconds: dict[tuple[str, str], list[float]] = {}
        reports: dict[str, ExtractReport] = {}

        def whole(name: str, encoder: Encoder) -> None:
            reports[name] = extract(pool, files, encoder, contents)

        for _ in range(options.rounds):
            for name, encoder in encoders.items():
                passes: dict[str, Callable[[], Any]] = {
                    "decode": lambda: decode(pool, files, views),
                    "encode": lambda encoder=encoder: encode(encoder, frames),
                    "whole": lambda name=name, encoder=encoder: whole(name, encoder),
                }
                for stage, run in passes.items():
                    seconds.setdefault((name, stage), []).append(clock(run))
    load = os.getloadavg()[0]
    print(f"{len(frames)} clips, {options.workers} decoding processes, {options.rounds} rounds, load {load:.1f}")
    header = f"{'encoder':9} {'decode s':>9} {'encode s':>9} {'whole s':>8} {'videos/s':>9} {'efficiency':>11}"
    print(f"{header}  time of the whole")
    for name in encoders:
        stages = [seconds[name, stage] for stage in ("decode", "encode", "whole")]
        decoding, encoding, both = map(statistics.median, stages)
        ratios = [max(decoded, encoded) / total for decoded, encoded, total in zip(*stages, strict=True)]
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in reports[name].shares.items())
        print(
            f"{name:9} {decoding:9.2f} {encoding:9.2f} {both:8.2f} {len(frames) / both:9.1f} "
            f"{statistics.median(ratios):11.2f}  {shares}"
        )


if __name__ == "__main__":
    main()
