"""FAME, table 1: which maps of face pairs name the pixels that a verification system decides by."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camlucida.errors import CamlucidaError
from camlucida.explain import MethodLike
from camlucida.faces.bench_pairs import BenchPair, listed_pairs
from camlucida.faces.benchmark import RANDOM, VerificationBenchmark, run_verification
from camlucida.faces.embedder import Embedder
from camlucida.faces.load import load_embedder
from camlucida.faces.outcome import VerificationReport
from camlucida.faces.pair import CARE
from camlucida.faces.pairs_file import Layout, PairList, read_pairs
from camlucida.faces.standin import standin_pairs
from camlucida.methods import Progress
from camlucida.report.tables import Cell, Column, Table
from camlucida.reproduce.published import FAME_TABLE1

if TYPE_CHECKING:
    from camlucida.metrics.ranking import MaskRule

METHODS = ("gradcam", "gradcam-ew", "corrrise", "fggb", "fame")
"""In the order of the table."""

_KINDS = {"ar": "ar-glass", "scface": "scface-medium", "cfp-fp": "cfp-fp"}
CAVEAT = (
    "The published numbers are of an IResNet101 of AdaFace on AR (dark glasses), SCface (medium distance) and "
    "CFP-FP. The authors' own notes list faults of the scripts behind them (colours, input normalisation), so "
    "that protocols can be matched and not decimals."
)
STANDIN = (
    "A stand-in, not the data sets of the table: genuine pairs are photos of people and computed variations of "
    "the same photos, which makes them easier than real pairs; impostors are different people."
)
SMOOTH = (
    "Random pixels destroy a face wherever they fall, so their Delete is no bound for smooth maps; random "
    "patches are as smooth as FAME's maps."
)


@dataclass(frozen=True, eq=False)
class FameTable1:
    """The table, done again.

    Attributes:
        report: what was measured.
        data: ``"ar-glass"``, ``"scface-medium"``, ``"cfp-fp"``, ``"standin"`` or the kind of another list.
        facts: about the pairs, ready for JSON.
    """

    report: VerificationReport
    data: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def published(self) -> Mapping[str, tuple[float, float]]:
        """Delete and Insert of the paper by method; empty for data that it does not use."""
        return {name: row[self.data] for name, row in FAME_TABLE1.items() if self.data in row}

    def table(self, rule: MaskRule = "percentile") -> Table:
        """Our areas with their intervals, the published ones beside them."""
        rows = []
        for label, curves in self.report.curves.items():
            known = self.published.get(label.partition(" ")[0])
            cells = []
            for at, mode in enumerate(("delete", "insert")):
                curve = curves[rule, mode]
                cells.append(
                    Cell(
                        curve.auc, curve.low, curve.high,
                        published=None if known is None or label in RANDOM else known[at],
                    )
                )  # fmt: skip
            cells.append(Cell(self.report.seconds.get(label)))
            rows.append((label, tuple(cells)))
        words = (
            "pixels above the percentile" if rule == "percentile" else "exactly P % of the pixels"
        )
        return Table(
            name=f"fame-table1-{rule}",
            caption=f"Delete and Insert on {self.data}, {self.report.plan['embedder']}; {words}.",
            columns=(
                Column("Delete", "lower", places=1),
                Column("Insert", "higher", places=1),
                Column("seconds", "none", "s", places=2),
            ),
            rows=tuple(rows),
            legend="Area under the verification accuracy over P, times 100; 95 % bootstrap intervals over "
            "people; published values in brackets.",
        )

    @staticmethod
    def published_table() -> Table:
        """All published numbers."""
        kinds = ("ar-glass", "scface-medium", "cfp-fp")
        return Table(
            name="fame-table1-published",
            caption="FAME, table 1, as published: IResNet101 (AdaFace).",
            columns=tuple(
                column
                for kind in kinds
                for column in (
                    Column(f"{kind} Delete", "lower", places=1),
                    Column(f"{kind} Insert", "higher", places=1),
                )
            ),
            rows=tuple(
                (name, tuple(Cell(value) for kind in kinds for value in row[kind]))
                for name, row in FAME_TABLE1.items()
            ),
            legend=CAVEAT,
        )

    def versus_random(self, rule: MaskRule = "percentile") -> dict[str, dict[str, bool]]:
        """Of each method, whether its Delete lies under and its Insert over those of smooth random maps."""
        curves = self.report.curves
        base = curves["random patches"]
        return {
            label: {
                "delete": curves[label][rule, "delete"].auc < base[rule, "delete"].auc,
                "insert": curves[label][rule, "insert"].auc > base[rule, "insert"].auc,
            }
            for label in curves
            if label not in RANDOM
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "experiment": "fame-table1",
            "data": self.data,
            "pairs_from": self.facts,
            "published": {name: list(row) for name, row in self.published.items()},
            "published_all": {
                k: {d: list(v) for d, v in r.items()} for k, r in FAME_TABLE1.items()
            },
            "better_than_random_patches": self.versus_random(),
            "notes": [CAVEAT, SMOOTH, *([STANDIN] if self.data == "standin" else []), CARE],
            **self.report.to_dict(),
        }


def run(
    data: str | os.PathLike[str] | None = None,
    backbone: str | Embedder = "dlib",
    *,
    standin: bool = False,
    photos: str | os.PathLike[str] | None = None,
    layout: Layout = "auto",
    split: int | None = None,
    methods: Sequence[MethodLike] | None = None,
    iterations: int | None = None,
    people: int | None = None,
    per_person: int = 2,
    already_aligned: bool = False,
    limit: int | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str | None = None,
    seed: int = 0,
    round_theta: bool = False,
    progress: Progress | None = None,
) -> FameTable1:
    """Do FAME's table 1 again.

    Args:
        data: the folder of AR, SCface or CFP, or any list that ``read_pairs`` knows; not with ``standin``.
        backbone: what ``load_embedder`` takes, such as ``"iresnet101:adaface.ckpt"``, or an embedder.
        standin: pairs from photos of people and computed variations instead.
        photos: for the stand-in, a folder ``IDENTITY/photo.jpg``; by default the photos of the package.
        layout: of the list, see ``read_pairs``.
        split: one split of CFP or LFW; the authors used one of CFP-FP's, 700 pairs.
        methods: the five of the table by default.
        iterations: of FAME; 500 by default, with ``standin`` 20, which takes minutes.
        people: with ``standin``, that many at most.
        per_person: with ``standin``, genuine pairs per person.
        already_aligned: the photos are aligned crops.
        limit: that many pairs, spread evenly over genuine and impostor ones.
        out: a folder that keeps what is done, so that a stopped run goes on.
        device: such as ``"cuda"``.
        seed: of masks, variations and bootstrap.
        round_theta: round the threshold to 4 decimals, as the published pipeline does.
        progress: called with the work done and its whole.

    Raises:
        CamlucidaError: both or neither of data and stand-in, or anything that cannot be read.
    """
    if standin == (data is not None):
        raise CamlucidaError(
            "give the folder of a data set, or standin=True (--standin), one of them"
        )
    embedder = (
        backbone if isinstance(backbone, Embedder) else load_embedder(backbone, device=device)
    )
    pairs: Sequence[BenchPair]
    if data is None:
        made = standin_pairs(embedder, photos, per_person=per_person, people=people, seed=seed)
        pairs, kind, facts = made.pairs, "standin", made.describe()
    else:
        listed: PairList = read_pairs(data, layout, split=split, seed=seed)
        pairs = listed_pairs(embedder, listed, already_aligned=already_aligned)
        kind = _KINDS.get(listed.layout, listed.layout)
        facts = {
            "source": str(listed.source),
            "layout": listed.layout,
            "genuine": listed.genuine,
            "impostor": listed.impostor,
            "skipped": list(listed.skipped),
        }
    steps = iterations or (20 if standin else 500)
    chosen = methods or [("fame", {"iterations": steps}) if m == "fame" else m for m in METHODS]
    bench = VerificationBenchmark(
        embedder,
        pairs if limit is None else evenly(pairs, limit),
        chosen,
        round_theta=round_theta,
        seed=seed,
    )
    report = run_verification(bench, None if out is None else Path(out), progress=progress)
    return FameTable1(report, kind, facts)


def evenly(pairs: Sequence[BenchPair], limit: int) -> list[BenchPair]:
    """So many pairs, half of them genuine as far as there are, spread evenly over the list."""
    if limit < 2:
        raise CamlucidaError(f"a limit must leave at least 2 pairs, got {limit}")
    chosen: list[int] = []
    for same, count in ((True, limit - limit // 2), (False, limit // 2)):
        own = [i for i, pair in enumerate(pairs) if pair.same == same]
        step = max(1.0, len(own) / count)
        chosen += [own[int(k * step)] for k in range(min(count, len(own)))]
    return [pairs[i] for i in sorted(chosen)]
