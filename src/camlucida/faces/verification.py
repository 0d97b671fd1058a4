"""The verification benchmark: methods on a list of pairs, by what deleting and inserting pixels does."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.files import Stamp, check_regular, locked, stamp, unchanged, write
from camlucida.common.jsonable import digest, plain
from camlucida.common.optional import first_line
from camlucida.common.provenance import fingerprint
from camlucida.common.statistics import Floats
from camlucida.common.store import start_plan
from camlucida.common.version import __version__
from camlucida.explanation.explain import MethodLike
from camlucida.faces.bench_pairs import BenchPair
from camlucida.faces.embedder import Embedder
from camlucida.faces.protocol import (
    MODES,
    PERCENTAGES,
    RULES,
    altered_scores,
    eer_threshold,
    random_map,
    threshold_at,
)
from camlucida.faces.similarity_maps import face_method, similarity_maps
from camlucida.faces.verification_report import VerificationReport
from camlucida.methods import Progress
from camlucida.metrics.ranking import MaskRule

FORMAT = 1
"""Of the run folder; another one is refused."""

RANDOM = {"random pixels": 0.0, "random patches": 7.7}
"""Maps that know nothing, with their blur in pixels; the second is as smooth as FAME's."""


@dataclass(frozen=True)
class VerificationBenchmark:
    """What is to be done; :func:`run_verification` does it.

    Attributes:
        embedder: the network.
        pairs: genuine and impostor ones.
        methods: the methods, as for ``explain_pair``.
        percentages: P, 0 to 100 by tens by default.
        rules: the rules by which pixels count as the P % most important; both by default, side by side.
        both: alter the gallery photo by its own map too; by default the probe only, as in the paper.
        threshold: ``"eer"`` (default) finds it on the unaltered pairs; or a number.
        round_theta: round it to 4 decimals, for parity with published numbers.
        eer_midpoint: see :func:`eer_threshold`.
        seed: the seed of masks, random maps and bootstrap.
        shard: pairs that are explained together and written together.

    Example:
        >>> bench = camlucida.faces.VerificationBenchmark(embedder, pairs, ["fame:iterations=1"])
        >>> bench.labels
        ('fame (iterations=1)',)
    """

    embedder: Embedder
    pairs: Sequence[BenchPair]
    methods: Sequence[MethodLike]
    percentages: tuple[float, ...] = PERCENTAGES
    rules: tuple[MaskRule, ...] = RULES
    both: bool = False
    threshold: float | Literal["eer"] = "eer"
    round_theta: bool = False
    eer_midpoint: bool = False
    seed: int = 0
    shard: int = 8

    def __post_init__(self) -> None:
        """Check what was given."""
        same = [pair.same for pair in self.pairs]
        if all(same) or not any(same):
            raise CamlucidaError(
                f"a verification benchmark needs genuine and impostor pairs, got {sum(same)} and "
                f"{len(same) - sum(same)}"
            )
        if self.shard < 1:
            raise CamlucidaError(f"a shard holds at least 1 pair, got {self.shard}")
        if not self.methods:
            raise CamlucidaError("no method was given")
        if len(set(self.labels)) < len(self.labels):
            raise CamlucidaError(f"a method is given twice: {', '.join(self.labels)}")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Of the methods, in their order."""
        target = self.embedder.target(torch.zeros(1))
        return tuple(face_method(one, target)[1] for one in self.methods)

    @property
    def shards(self) -> list[range]:
        """Positions of the pairs of each shard."""
        count = len(self.pairs)
        return [range(i, min(i + self.shard, count)) for i in range(0, count, self.shard)]

    @cached_property
    def record(self) -> dict[str, Any]:
        """Everything that decides the numbers, ready for JSON, with a digest."""
        target = self.embedder.target(torch.zeros(1))
        found = plain({
            "format": FORMAT,
            "camlucida": __version__,
            "embedder": self.embedder.name,
            "compare": self.embedder.compare,
            "weights_sha256": fingerprint(self.embedder.module),
            "preprocess": None if self.embedder.preprocess is None else self.embedder.preprocess.to_dict(),
            "layer": self.embedder.layer,
            "methods": [face_method(m, target, seed=self.seed)[0].describe() for m in self.methods],
            "percentages": self.percentages,
            "rules": self.rules,
            "both": self.both,
            "threshold": self.threshold,
            "round_theta": self.round_theta,
            "eer_midpoint": self.eer_midpoint,
            "seed": self.seed,
            "shard": self.shard,
            "pairs": len(self.pairs),
            "pairs_sha256": digest([[p.key, p.same, p.person] for p in self.pairs]),
        })  # fmt: skip
        return {**found, "digest": digest([found])}


# --------------------------------------------------------------------------------------------- the run


def run_verification(
    bench: VerificationBenchmark,
    out: str | Path | None = None,
    *,
    batch_size: int = 16,
    verify_data: bool = False,
    progress: Progress | None = None,
) -> VerificationReport:
    """Embed all pairs, find the threshold, explain every probe, alter it, and count right decisions.

    Args:
        bench: what is to be done.
        out: a folder that keeps what is done, shard by shard: a run that was stopped, by whatever, goes on
            where it was. What is damaged there, or older than its photos, is computed again. ``None`` keeps
            nothing. Neither photos nor embeddings are written.
        batch_size: altered faces at a time.
        verify_data: read the photos of what is done, to see whether they have changed, where their size and time
            say they have not.
        progress: is called with the number of shards done and their number.

    Returns:
        Threshold, accuracy curves and areas of every method and of random maps.

    Raises:
        CamlucidaError: the folder holds the results of another plan, or too few photos can be used.

    Example:
        >>> bench = camlucida.faces.VerificationBenchmark(embedder, pairs, ["fame:iterations=1"])
        >>> report = camlucida.faces.run_verification(bench)
        >>> sorted(report.curves)
        ['fame (iterations=1)', 'random patches', 'random pixels']
    """
    if out is None:
        return _run(_Work(bench, None, batch_size), progress)
    folder = Path(out)
    with locked(folder):
        start_plan(folder, bench.record, results=any(folder.glob("*/shard-*.npz")))
        return _run(_Work(bench, folder, batch_size, verify_data=verify_data), progress)


def _run(work: _Work, progress: Progress | None) -> VerificationReport:
    bench = work.bench
    total = 2 * len(bench.shards)
    clean: list[dict[str, Any]] = []
    for number, positions in enumerate(bench.shards):
        clean.append(work.kept("scores", number, [], lambda p=positions: work.embed(p)))  # type: ignore[misc]
        if progress is not None:
            progress(number + 1, total)
    scores = np.concatenate([part["score"] for part in clean])
    used = np.isfinite(scores)
    same = np.array([pair.same for pair in bench.pairs])
    threshold = (
        eer_threshold(
            scores[used], same[used], round_theta=bench.round_theta, eer_midpoint=bench.eer_midpoint
        )
        if bench.threshold == "eer"
        else threshold_at(float(bench.threshold), scores[used], same[used])
    )
    parts: list[dict[str, Any]] = []
    for number, positions in enumerate(bench.shards):
        known = [
            threshold.value,
            [str(score) for score in scores[positions.start : positions.stop]],
        ]
        parts.append(
            work.kept(
                "altered",
                number,
                known,
                lambda p=positions: work.alter(p, scores, threshold.value),  # type: ignore[misc]
            )
        )
        if progress is not None:
            progress(len(bench.shards) + number + 1, total)
    labels = (*bench.labels, *RANDOM)
    altered: dict[str, dict[tuple[str, str], Floats]] = {}
    for at, label in enumerate(labels):
        table = np.concatenate([part["altered"][:, at] for part in parts])[used]
        keys = [(rule, mode) for rule in bench.rules for mode in MODES]
        altered[label] = {key: table[:, k] for k, key in enumerate(keys)}
    seconds = np.concatenate([part["seconds"] for part in parts])
    return VerificationReport(
        plan=bench.record,
        keys=tuple(p.key for p, ok in zip(bench.pairs, used, strict=True) if ok),
        same=same[used],
        people=tuple(p.person or p.key for p, ok in zip(bench.pairs, used, strict=True) if ok),
        scores=scores[used],
        threshold=threshold,
        altered=altered,
        empty={
            label: int(sum(int(part["empty"][:, at].sum()) for part in parts))
            for at, label in enumerate(bench.labels)
        },
        seconds={label: float(np.nanmean(seconds[:, at])) for at, label in enumerate(bench.labels)},
        errors=tuple(str(e) for part in clean for e in part["error"] if str(e)),
    )


@dataclass
class _Work:
    """The two passes over the pairs, shard by shard."""

    bench: VerificationBenchmark
    folder: Path | None
    batch_size: int
    verify_data: bool = False
    inputs: dict[int, Tensor] = field(default_factory=dict)
    stamps: dict[Path, Stamp] = field(default_factory=dict)

    def kept(
        self, kind: str, number: int, known: Sequence[Any], make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """A shard, read where it is done, else made and written.

        ``known`` is what it depends on besides the plan and its pairs.
        """
        if self.folder is None:
            return make()
        path = self.folder / kind / f"shard-{number:06d}.npz"
        files = [file for i in self.bench.shards[number] for file in self.bench.pairs[i].files]
        facts = digest([kind, number, self.bench.record["digest"], known])
        if os.path.lexists(path):
            try:
                return self._read(path, facts, files)
            except Exception as error:  # damaged files raise many kinds
                warnings.warn(f"{str(path)!r} is computed again: {first_line(error)}", stacklevel=2)
        stamps = [self.stamp(file) for file in files]
        made = make()
        marks = np.array(json.dumps({"facts": facts, "stamps": stamps}))
        write(path, lambda p: np.savez_compressed(p, allow_pickle=False, marks=marks, **made))
        return made

    def _read(self, path: Path, facts: str, files: Sequence[Path]) -> dict[str, Any]:
        """The content of a shard.

        Raises:
            Exception: it is damaged, belongs to something else, or a photo has changed since.
        """
        check_regular(path, "shard")
        with np.load(path, allow_pickle=False) as found:
            content = dict(found)
        marks = json.loads(str(content.pop("marks")))
        if marks["facts"] != facts:
            raise CamlucidaError("it belongs to other scores")
        for file, known in zip(files, marks["stamps"], strict=True):
            if not unchanged(file, known, content=self.verify_data):
                raise CamlucidaError(f"{str(file)!r} has changed since it was read")
        return content

    def stamp(self, file: Path) -> Stamp:
        """Of a photo when this run first came to it."""
        if file not in self.stamps:
            self.stamps[file] = stamp(file)
        return self.stamps[file]

    def pair(self, index: int) -> Tensor:
        """Probe and gallery ``(2, C, H, W)``; a few are remembered between the passes."""
        if index not in self.inputs:
            made = self.bench.embedder.inputs(list(self.bench.pairs[index].load()))
            if len(self.inputs) < 256:
                self.inputs[index] = made
            return made
        return self.inputs[index]

    def embed(self, positions: range) -> dict[str, Any]:
        """The similarity of each pair, NaN where a photo cannot be used, with the reason."""
        embedder = self.bench.embedder
        scores, errors = [], []
        for index in positions:
            error, score = "", float("nan")
            try:
                a, b = embedder.embed(self.pair(index))
                score = float(embedder.similarity(a, b))
            except ImageError as problem:
                error = f"{self.bench.pairs[index].key}: {problem}"
            scores.append(score)
            errors.append(error)
        return {"score": np.array(scores), "error": np.array(errors, dtype=np.str_)}

    def alter(self, positions: range, scores: Floats, threshold: float) -> dict[str, Any]:
        """The scores ``(pairs, maps, rule and mode, P)`` of altered probes."""
        bench, embedder = self.bench, self.bench.embedder
        good = [index for index in positions if np.isfinite(scores[index])]
        methods, count = len(bench.methods), len(positions)
        keys = len(bench.rules) * len(MODES)
        altered = np.full((count, methods + len(RANDOM), keys, len(bench.percentages)), np.nan)
        seconds = np.full((count, methods), np.nan)
        empty = np.zeros((count, methods), dtype=bool)
        inputs = [self.pair(index) for index in good]  # (2, C, H, W) each
        embeddings = [embedder.embed(pair) for pair in inputs]
        rows = [index - positions.start for index in good]
        for at in range(methods + len(RANDOM)) if good else ():
            sides, took = self._maps(
                at, good, torch.stack(inputs), torch.stack(embeddings), threshold
            )
            for i, row in enumerate(rows):
                found = altered_scores(
                    partial(self._similarity, inputs[i], embeddings[i][1]),
                    sides[0][i],
                    sides[1][i] if len(sides) > 1 else None,
                    percentages=bench.percentages,
                    rules=bench.rules,
                    batch_size=self.batch_size,
                )
                altered[row, at] = np.stack(list(found.values()))
            if at < methods:
                seconds[rows, at] = took / len(good)
                empty[rows, at] = (sides[0].flatten(1).amax(1) <= 0).cpu().numpy()
        return {"altered": altered, "seconds": seconds, "empty": empty}

    def _maps(
        self, at: int, pairs: Sequence[int], inputs: Tensor, embeddings: Tensor, threshold: float
    ) -> tuple[list[Tensor], float]:
        """Maps ``(n, H, W)`` of the sides that are altered, by a method or at random, and the seconds they took."""
        bench = self.bench
        sides = range(2 if bench.both else 1)
        if at < len(bench.methods):
            found = [
                similarity_maps(
                    bench.embedder, inputs[:, side], embeddings[:, 1 - side], bench.methods[at],
                    dissimilar=False, threshold=threshold, seed=bench.seed, batch_size=bench.shard,
                )
                for side in sides
            ]  # fmt: skip
            return [maps.similar for maps in found], sum(maps.seconds for maps in found)
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        sigma = list(RANDOM.values())[at - len(bench.methods)]
        drawn = [
            torch.stack([random_map(size, bench.seed, 2 * i + side, sigma=sigma) for i in pairs])
            for side in sides
        ]
        return drawn, 0.0

    def _similarity(
        self, pair: Tensor, whole: Tensor, probe: Tensor, gallery: Tensor | None = None
    ) -> Tensor:
        """The similarity of a pair whose pixels are blackened.

        ``pair`` are the inputs of probe and gallery, ``whole`` is the embedding of the whole gallery face. The masks
        ``(n, H, W)`` are true where a pixel is kept; without one the gallery face stays whole.
        """
        embedder = self.bench.embedder
        preprocess = embedder.preprocess
        assert preprocess is not None  # noqa: S101

        def embed(image: Tensor, masks: Tensor) -> Tensor:
            pixels = preprocess.denormalise(image[None]) * masks[:, None].to(image)
            return embedder.embed(preprocess.normalise(pixels))

        other = whole if gallery is None else embed(pair[1], gallery)
        return embedder.similarity(embed(pair[0], probe), other)
