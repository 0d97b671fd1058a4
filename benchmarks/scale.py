"""What a benchmark costs as it grows: linear in photos, and two Ray workers against two processes of their own.

From the repository's root, on an idle machine::

    OMP_NUM_THREADS=1 python -m benchmarks.scale photos 1000 10000 100000
    OMP_NUM_THREADS=1 python -m benchmarks.scale ray --photos 256 --rounds 5

``photos`` runs a tiny network on photos that are made as they are read, so that what is measured is everything but the
model: reading, writing shards, resuming, summary, report, memory and storage. ``ray`` takes the median of interleaved
rounds. The rate of a side is that of its photos without those of each worker's first shard, from the end of the first
shard to the end of the last: what starting costs is told beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import nn

from camlucida.benchmark import RunFolder, local, summarise, write_report
from camlucida.benchmark.plan import open_bench
from camlucida.data import Preprocess
from camlucida.data.samples import DataSet, Sample

METHODS = ("gradcam", "layercam", "gradcam++", "hirescam")
METRICS = ("concentration",)
SIZE = 16


class Made(Sample):
    """A photo that is made as it is read."""

    def picture(self) -> Image.Image:
        """Noise of its own."""
        draw = np.random.default_rng(int(self.key))
        return Image.fromarray(draw.integers(0, 255, (SIZE, SIZE, 3), np.uint8))


class Photos(DataSet):
    """So many of them."""

    name = "made"

    def __init__(self, number: int) -> None:
        self._number = number

    def __len__(self) -> int:
        return self._number

    def sample(self, index: int) -> Sample:
        """The sample at a position."""
        return Made(str(index), index % 4, f"class {index % 4}")


def network() -> nn.Module:
    """A classifier that costs next to nothing."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    ).eval()


def photos(number: int) -> dict[str, float]:
    """Seconds, memory and storage of a run of so many photos; alone in its process."""
    with tempfile.TemporaryDirectory() as place:
        prepare = Preprocess((SIZE, SIZE), SIZE)
        bench = open_bench(network(), Photos(number), METHODS, METRICS, preprocess=prepare)
        found, out = {"photos": float(number)}, Path(place) / "run"
        steps = {
            "evaluate": lambda: local.run(bench, out, batch_size=32),
            "resume": lambda: local.run(bench, out, batch_size=32),
            "summary": lambda: summarise(out),
            "report": lambda: write_report(out, gallery=False),
        }
        for name, step in steps.items():
            started, work = time.perf_counter(), time.process_time()
            step()
            found[name] = time.perf_counter() - started
            found[f"{name}, processor"] = time.process_time() - work
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            found[f"{name}, peak MB"] = peak
        shards = [f for kind in ("rows", "images") for f in (out / kind).iterdir()]
        found["bytes a photo"] = sum(f.stat().st_size for f in shards) / number
    return found


# ---- workers ------------------------------------------------------------------------------------


def folder_of(place: Path, number: int) -> Path:
    """So many JPEGs of 500 x 375 pixels."""
    place.mkdir()
    for i in range(number):
        draw = np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8)
        Image.fromarray(draw).resize((500, 375), Image.Resampling.BICUBIC).save(
            place / f"{i:05d}.jpg"
        )
    return place


def ours(data: Path, out: Path, engine: str) -> list[str]:
    """The command of one evaluation."""
    code = (
        "import sys\n"
        "from camlucida.common.allocator import keep_freed_memory\n"
        "from camlucida.benchmark import evaluate\n"
        "keep_freed_memory()\n"
        "data, out, engine = sys.argv[1:]\n"
        "how = {'workers': 2} if engine == 'ray' else {}\n"
        "evaluate('embedded', data, ['gradcam', 'layercam'], ['concentration', 'average-drop'], out=out,\n"
        "         engine=engine, shard_size=8, threads=1, report=False, **how)\n"
    )
    return [sys.executable, "-c", code, str(data), str(out), engine]


def rate(runs: list[Path]) -> float:
    """Photos a second of workers that work at the same time, as their shards' times say."""
    total = 0.0
    for run in runs:
        folder = RunFolder(run)
        by: dict[int, list[tuple[float, int]]] = {}
        for number, facts in zip(sorted(folder.done()), folder.facts(), strict=True):
            ended = folder.file("rows", number).stat().st_mtime
            by.setdefault(facts.get("pid", 0), []).append((ended, facts["images"]))
        for shards in by.values():
            shards.sort()
            spent = shards[-1][0] - shards[0][0]
            total += sum(images for _, images in shards[1:]) / spent
    return total


def side(engine: str, halves: list[Path], place: Path) -> tuple[float, float]:
    """The rate of two workers, and the seconds of everything."""
    runs = [place / f"{engine}-{i}-{time.time_ns()}" for i in range(len(halves))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    started = time.perf_counter()
    working = [
        subprocess.Popen(ours(data, run, engine), env=environment, stderr=subprocess.DEVNULL)  # noqa: S603
        for data, run in zip(halves, runs, strict=True)
    ]
    if any(one.wait() for one in working):
        raise SystemExit(f"an evaluation with the engine {engine} failed")
    return rate(runs), time.perf_counter() - started


def workers(number: int, rounds: int) -> Iterator[dict[str, float]]:
    """Rates of two local processes on half of the photos each, and of two Ray workers on all; round by round."""
    with tempfile.TemporaryDirectory() as root:
        place = Path(root)
        whole = folder_of(place / "all", number)
        halves = [place / "one", place / "two"]
        for i, half in enumerate(halves):
            half.mkdir()
            for file in sorted(whole.iterdir())[i::2]:
                (half / file.name).symlink_to(file)
        for _ in range(rounds):
            two, two_seconds = side("local", halves, place)
            ray, ray_seconds = side("ray", [whole], place)
            yield {
                "local": two, "ray": ray, "ratio": ray / two, "local seconds": two_seconds, "ray seconds": ray_seconds,
            }  # fmt: skip


def main() -> None:
    """Run one of the two and print what was measured as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    linear = commands.add_parser("photos")
    linear.add_argument("numbers", type=int, nargs="+")
    pool = commands.add_parser("ray")
    pool.add_argument("--photos", type=int, default=256)
    pool.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "photos":
        if len(options.numbers) == 1:
            print(json.dumps(photos(options.numbers[0])))
            return
        for number in options.numbers:  # each in a process of its own, for its peak of memory
            command = [sys.executable, "-m", "benchmarks.scale", "photos", str(number)]
            subprocess.run(command, check=True)  # noqa: S603
        return
    rows = []
    for row in workers(options.photos, options.rounds):
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(json.dumps({f"median {name}": median(row[name] for row in rows) for name in rows[0]}))


if __name__ == "__main__":
    main()
