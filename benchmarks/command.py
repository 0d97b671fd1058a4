"""The command that every family of methods shares: options, the task, the table, the JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.timing import Contender, Row, Workload, measure
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

import camlucida
from camlucida.engine.layers import default_layer

Family = Callable[[Workload], Iterable[Contender]]

PACKAGES = (
    "camlucida",
    "torch",
    "torchvision",
    "timm",
    "grad-cam",
    "torchcam",
    "captum",
    "quantus",
)


def main(family: Family, title: str) -> None:
    """Run a family's benchmark from the command line.

    Args:
        family: the contenders for a task.
        title: heads the table.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument(
        "--model", default="resnet50", help="a torchvision or timm name, or embedded"
    )
    parser.add_argument("--layer", help="by default the model's last feature map")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--only", nargs="+", help="rows whose library and name contain one of these"
    )
    parser.add_argument("--skip", nargs="+", help="leave out rows that contain one of these")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=_cores(), help="by default one per core")
    parser.add_argument("--seed", type=int, default=0, help="of weights, images and order")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    options = parser.parse_args()

    threads = options.threads
    torch.set_num_threads(threads)
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    machine = _machine(options.device, threads)
    console.print("\n".join(f"{key}: {value}" for key, value in machine.items()), highlight=False)
    pictures = random_images
    if options.model == "embedded":
        model, pictures = real_model(options.device)
    else:
        model = random_model(options.model, options.size, options.device, options.seed)
    results = []
    for batch in options.batch:
        images = pictures(batch, options.size, options.device, options.seed)
        task = task_of(model, images, options.layer)
        chosen = [
            c
            for c in family(task)
            if (options.only is None or _matches(options.only, c))
            and not _matches(options.skip or [], c)
        ]
        others = Others()
        with Progress(console=console, transient=True) as bar:
            running = bar.add_task(f"batch {batch}", total=options.rounds)
            rows = measure(
                task,
                chosen,
                rounds=options.rounds,
                seed=options.seed,
                progress=lambda done, _, bar=bar, running=running: bar.update(
                    running, completed=done
                ),
            )
        load = others.load()
        heading = (
            f"{title}: {options.model}, layer {task.layer}, batch {batch}, {options.size} px, "
            f"{options.rounds} rounds"
            + ("" if load is None else f"; other programs kept {load:.2f} of {_cores()} cores busy")
        )
        console.print(table(rows, batch, heading))
        results.append(
            {
                "batch": batch,
                "layer": task.layer,
                "others": load,
                "rows": [as_dict(r) for r in rows],
            }
        )
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        record = {"title": title, "machine": machine, "settings": settings, "results": results}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _matches(words: list[str], contender: Contender) -> bool:
    return any(word.lower() in f"{contender.library} {contender.name}".lower() for word in words)


# ------------------------------------------------------------------------------------ model and images


def random_model(name: str, size: int, device: str, seed: int) -> nn.Module:
    """A torchvision or timm model with random weights, in evaluation mode.

    Its batch norms are given the statistics of random images: those that a new model comes with let the
    activations of a deep residual network grow beyond what any trained one has.
    """
    torch.manual_seed(seed)
    try:
        from torchvision.models import get_model

        model = get_model(name, weights=None)
    except (ImportError, ValueError):
        import timm

        model = timm.create_model(name, pretrained=False)
    model = model.to(device).eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(random_images(8, size, device, seed + 1))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return model.eval()


def random_images(number: int, size: int, device: str, seed: int) -> Tensor:
    """Smooth random pictures with some noise, ``(N, 3, size, size)``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(number, 3, 6, 6, generator=generator)
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    noise = torch.randn(smooth.shape, generator=generator)
    return (smooth + 0.2 * noise).to(device)


def real_model(device: str) -> tuple[nn.Module, Callable[[int, int, str, int], Tensor]]:
    """The embedded model, and its own photos one after the other in place of random pictures."""
    loaded = camlucida.load_model("embedded", device=device)
    photos = [
        loaded.preprocess(Image.open(photo.path)) for photo in camlucida.data.open_data("photos")
    ]

    def pictures(number: int, _size: int, device: str, seed: int) -> Tensor:
        return torch.stack([photos[(seed + i) % len(photos)] for i in range(number)]).to(device)

    return loaded.module, pictures


def task_of(model: nn.Module, inputs: Tensor, layer: str | None) -> Workload:
    """The classes that the model predicts for images are explained."""
    with torch.no_grad():
        classes = tuple(model(inputs).argmax(1).tolist())
    return Workload(model, layer or default_layer(model, inputs), inputs, classes)


# --------------------------------------------------------------------------------------------- results


def table(rows: list[Row], batch: int, title: str) -> Table:
    """The rows as a table."""
    on_cuda = any(row.peak is not None for row in rows)
    result = Table(title=title, title_justify="left")
    result.add_column("library")
    result.add_column("method")
    result.add_column("x forward", justify="right")
    result.add_column("quartiles", justify="right")
    result.add_column("CPU x forward" if not on_cuda else "host x forward", justify="right")
    result.add_column("ms/image", justify="right")
    result.add_column("held, MB", justify="right")
    if on_cuda:
        result.add_column("peak, MB", justify="right")
    result.add_column("agrees with ours")
    library = None
    for row in rows:
        contender = row.contender
        if library is not None and contender.library != library:
            result.add_section()
        library = contender.library
        if row.error:
            result.add_row(library, contender.name, "-", "", "", "", "", *[""] * on_cuda, row.error)
            continue
        first, third = row.spread
        cells = [
            f"{row.ratio:.3f}",
            f"{first:.3f} - {third:.3f}",
            f"{statistics.median(row.work):.3f}",
            f"{1000 * statistics.median(row.seconds) / batch:.1f}",
            _megabytes(row.held),
        ]
        if on_cuda:
            cells.append(_megabytes(row.peak))
        result.add_row(library, contender.name, *cells, _agreement(row, batch))
    return result


def _megabytes(number: int | None) -> str:
    return "" if number is None else f"{number / 1e6:.1f}"


def _agreement(row: Row, batch: int) -> str:
    if row.agreement is None and not row.constant:
        return ""
    if row.agreement is None:
        return f"{row.contender.like}: all maps constant"
    left_out = f" (without {row.constant} of {batch}: constant)" if row.constant else ""
    return f"{row.contender.like}: {row.agreement:.4f}{left_out}"


def as_dict(row: Row) -> dict[str, Any]:
    """A row, ready for JSON."""
    measured = {key: value for key, value in vars(row).items() if key != "contender"}
    summary = {} if row.error else {"ratio": row.ratio, "quartiles": row.spread}
    contender = row.contender
    named = {"library": contender.library, "method": contender.name, "like": contender.like}
    return {**named, **summary, **measured}


def _machine(device: str, threads: int) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "processor": _processor(),
        "threads": f"{threads} of {_cores()} cores, OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY')}",
        "python": platform.python_version(),
    }
    if device.startswith("cuda"):
        facts["GPU"] = torch.cuda.get_device_name(device)
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    facts["torch"] = torch.__version__
    return facts


class Others:
    """How many cores other programs keep busy, from now on; known on Linux only."""

    def __init__(self) -> None:
        self._start = self._read()

    def load(self) -> float | None:
        """The mean number of cores since the start."""
        now = self._read()
        if now is None or self._start is None:
            return None
        wall, busy, own = (b - a for a, b in zip(self._start, now, strict=True))
        return max(0.0, (busy - own) / wall)

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        statistics_file = Path("/proc/stat")
        if not statistics_file.exists():
            return None
        ticks = statistics_file.read_text(encoding="utf-8").partition("\n")[0].split()[1:]
        user, nice, system, _idle, _waiting, interrupt, soft, stolen = map(int, ticks[:8])
        busy = (user + nice + system + interrupt + soft + stolen) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, time.process_time()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
