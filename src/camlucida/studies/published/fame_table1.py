"""FAME, table 1: which maps of face pairs name the pixels that a verification system decides by."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from camlucida.common.errors import CamlucidaError
from camlucida.explanation.explain import MethodLike
from camlucida.faces.bench_pairs import BenchPair, listed_pairs, varied_pairs
from camlucida.faces.embedder import Embedder
from camlucida.faces.load import load_embedder
from camlucida.faces.page import verification_page, verification_table
from camlucida.faces.pair import CARE
from camlucida.faces.pairs_file import read_pairs
from camlucida.faces.photos import demo_photos, how_to_get
from camlucida.faces.protocol import MODES
from camlucida.faces.verification import RANDOM, VerificationBenchmark, run_verification
from camlucida.faces.verification_report import VerificationReport
from camlucida.methods import Progress
from camlucida.report import Cell, Column, Section, Table, save
from camlucida.report.page import picture
from camlucida.report.tables import Direction
from camlucida.studies.published.fame_figure3 import Figure3, figure3
from camlucida.studies.published.numbers import FAME_TABLE1

if TYPE_CHECKING:
    from camlucida.metrics.ranking import MaskRule

METHODS = ("gradcam", "gradcam-ew", "corrrise", "fggb", "fame")
"""In the order of the table."""

_BETTER: Mapping[str, Direction] = {"Delete": "lower", "Insert": "higher"}

MANY = 30
"""People that a stand-in should have at least."""

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
        grid: their figure 3 on one photo; ``None`` where it was not made.

    Example:
        >>> table = camlucida.studies.published.FameTable1.published_table()
        >>> [name for name, _ in table.rows]
        ['gradcam', 'gradcam-ew', 'corrrise', 'fggb', 'fame']
    """

    report: VerificationReport
    data: str
    facts: dict[str, Any] = field(default_factory=dict)
    grid: Figure3 | None = None
    complete: ClassVar[bool] = True

    @property
    def published(self) -> Mapping[str, tuple[float, float]]:
        """Delete and Insert of the paper by method; empty for data that it does not use."""
        return {name: row[self.data] for name, row in FAME_TABLE1.items() if self.data in row}

    def table(self, rule: MaskRule = "percentile") -> Table:
        """Our areas with their intervals, the published ones beside them."""

        def published(label: str) -> tuple[float, float] | None:
            return None if label in RANDOM else self.published.get(label.partition(" ")[0])

        return verification_table(self.report, rule, name="fame-table1", published=published)

    @staticmethod
    def published_table() -> Table:
        """All published numbers."""
        columns = [
            Column(f"{kind} {what}", direction, places=1)
            for kind in FAME_TABLE1["fame"]
            for what, direction in _BETTER.items()
        ]
        rows = [(name, *chain.from_iterable(row.values())) for name, row in FAME_TABLE1.items()]
        caption = "FAME, table 1, as published: IResNet101 (AdaFace)"
        return Table.of_rows("fame-table1-published", caption, ("method", *columns), rows, CAVEAT)

    @property
    def tables(self) -> tuple[Table, ...]:
        """Ours by every rule, side by side with the published ones, and what covers do to the maps."""
        found = [*map(self.table, self.report.rules), self.published_table(), self.versus_fame()]
        return (*found, *([self.grid.table()] if self.grid is not None else []))

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

    def versus_fame(self) -> Table:
        """Every other map's area less FAME's, on the same pairs, with intervals; empty without FAME."""
        labels = list(self.report.curves)
        fame = next((name for name in labels if name.partition(" ")[0] == "fame"), "")
        keys = [(rule, mode) for rule in self.report.rules for mode in MODES]
        return Table.of_rows(
            "fame-table1-differences",
            "Other maps less FAME's, on the same pairs",
            (
                "method",
                *(Column(f"{mode.capitalize()}, by {rule}", places=1) for rule, mode in keys),
            ),
            (
                (name, *(Cell(*self.report.difference(name, fame, *key)) for key in keys))
                for name in labels
                if fame and name != fame
            ),
            "Delete above 0 and Insert below 0 speak for FAME; an interval that holds 0 speaks for neither.",
        )

    @property
    def lead(self) -> tuple[str, ...]:
        """What was found, in sentences."""
        report = self.report
        told = [
            (f"{len(report.keys)} pairs of {len(set(report.people))} people ({self.data}), {report.plan['embedder']}: "
            f"{report.decided}.")
        ]  # fmt: skip
        better = self.versus_random()
        for mode, word in (("delete", "under"), ("insert", "over")):
            right = [name for name, found in better.items() if found[mode]]
            wrong = [name for name, found in better.items() if not found[mode]]
            text = f"{mode.capitalize()} lies {word} that of random patches for {', '.join(right) or 'no method'}"
            told.append(text + (f", and not for {', '.join(wrong)}." if wrong else "."))
        many = self.facts.get("people")
        if self.data == "standin" and isinstance(many, int) and many < MANY:
            told.append(
                f"Faces of {many} people are few: {MANY} or more make a table that can be read. Photos of 63 people "
                "are in packages; fetch them into an empty folder and give it as the photos:"
            )
            told += [f"    {line}" for line in how_to_get().splitlines()]
        return tuple(told)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know."""
        return (CAVEAT, SMOOTH, *([STANDIN] if self.data == "standin" else []))

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "experiment": "fame-table1",
            "data": self.data,
            "lead": list(self.lead),
            "pairs_from": self.facts,
            "published": {name: list(row) for name, row in self.published.items()},
            "published_all": {
                k: {d: list(v) for d, v in r.items()} for k, r in FAME_TABLE1.items()
            },
            "better_than_random_patches": self.versus_random(),
            "figure3": None if self.grid is None else self.grid.to_dict(),
            "notes": [*self.notes, CARE],
            "care": CARE,
            **self.report.to_dict(),
        }

    def html(self) -> str:
        """One page with everything in it; nothing is fetched."""
        others = [
            Section("fame", "Where FAME stands", [self.versus_fame()]),
            Section("published", "As published", [self.published_table()]),
        ]
        if self.grid is not None:
            caption = f"{self.grid.photo}: what keeps a varied photo similar to the photo itself"
            shown = (picture(self.grid.png, caption), self.grid.table())
            others.append(Section("figure3", "Methods and variations", shown))
        plan = self.report.plan
        return verification_page(
            "Which pixels decide that two faces match: FAME, table 1",
            self.lead,
            report=self.report,
            tables=[self.table(rule) for rule in self.report.rules],
            others=others,
            facts=[
                ("network", plan["embedder"]),
                ("data", self.data),
                ("pairs", str(len(self.report.keys))),
                ("people", str(len(set(self.report.people)))),
                ("seed", str(plan["seed"])),
                ("camlucida", plan["camlucida"]),
            ],
            notes=self.notes,
        ).html()

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the page, the JSON, the grid, and each table as CSV and LaTeX; the page is the first of the files.

        Raises:
            CamlucidaError: the folder cannot be written to.
        """
        pictures = {} if self.grid is None else {"fame-figure3.png": self.grid.png}
        return save(folder, "fame-table1", self.html(), self.to_dict(), self.tables, pictures)


def fame_table1(
    data: str | os.PathLike[str] | None = None,
    backbone: str | Embedder = "dlib",
    *,
    standin: bool = False,
    photos: str | os.PathLike[str] | None = None,
    layout: str = "auto",
    split: int | None = None,
    methods: Sequence[MethodLike] | None = None,
    iterations: int | None = None,
    people: int | None = None,
    per_person: int = 2,
    aligned: bool = False,
    limit: int | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str | None = None,
    seed: int = 0,
    legacy: bool = False,
    with_grid: bool = True,
    progress: Progress | None = None,
) -> FameTable1:
    """Do FAME's table 1 again.

    Args:
        data: the folder of AR, SCface or CFP, or any list that ``read_pairs`` knows; not with ``standin``.
        backbone: what ``load_embedder`` takes, such as ``"iresnet101:adaface.ckpt"``, or an embedder.
        standin: pairs from photos of people and computed variations instead.
        photos: for the stand-in, a folder ``IDENTITY/photo.jpg`` or of packages with photos, see
            ``camlucida.faces.photos.face_photos``; by default the photos of the package.
        layout: the layout of the list, see ``read_pairs``, such as ``"ar:wear=scarf"``.
        split: one split of CFP or LFW; the authors used one of CFP-FP's, 700 pairs.
        methods: the five of the table by default.
        iterations: the iterations of FAME; 500 by default, with ``standin`` 20, which takes minutes.
        people: with ``standin``, that many at most.
        per_person: with ``standin``, genuine pairs per person.
        aligned: the photos are aligned crops.
        limit: that many pairs, spread evenly over genuine and impostor ones.
        out: a folder that keeps what is done, so that a stopped run goes on.
        device: the device, such as ``"cuda"``.
        seed: the seed of masks, variations and bootstrap.
        legacy: as the authors' scripts: FAME stops at a loss of 0.01, judged on the batch's mean, its maps are scaled
            by minimum and maximum, and the threshold is rounded to 4 decimals.
        with_grid: also make their figure 3, of the first genuine pair's photo or of one of the package.
        progress: is called with the work done and its whole.

    Raises:
        CamlucidaError: both or neither of data and stand-in, or anything that cannot be read.
    """
    if standin == (data is not None):
        raise CamlucidaError(
            "say what to run it on, one of them: the folder of AR, SCface or CFP or a list of pairs (--data), or "
            "varied photos of people, standin=True (--standin)"
        )
    if methods and (iterations is not None or legacy):
        raise CamlucidaError(
            "iterations (--iterations) and legacy (--legacy) are for the five methods of the table; among others write "
            "fame:iterations=N and fame:preset=reference_code_faces"
        )
    embedder = (
        backbone if isinstance(backbone, Embedder) else load_embedder(backbone, device=device)
    )
    pairs: Sequence[BenchPair]
    shown: list[Path]
    if data is None:
        made = varied_pairs(embedder, photos, per_person=per_person, people=people, seed=seed)
        pairs, kind, facts = made.pairs, "standin", made.describe()
        shown = [photo.path for photo in demo_photos()]
    else:
        listed = read_pairs(data, layout, split=split, seed=seed)
        pairs = listed_pairs(embedder, listed, aligned=aligned)
        kind = listed.data
        shown = [pair.gallery for pair in listed.pairs if pair.same][:5]
        facts = {
            "source": str(listed.source),
            "layout": listed.layout,
            "genuine": listed.genuine,
            "impostor": listed.impostor,
            "skipped": list(listed.skipped),
        }
    steps = iterations or (20 if standin else 500)
    own = {"iterations": steps} | ({"preset": "reference_code_faces"} if legacy else {})
    chosen = methods or [("fame", own) if m == "fame" else m for m in METHODS]
    bench = VerificationBenchmark(
        embedder,
        pairs if limit is None else evenly(pairs, limit),
        chosen,
        round_theta=legacy,
        seed=seed,
    )
    report = run_verification(bench, None if out is None else Path(out), progress=progress)
    grid = None
    if with_grid:
        grid = figure3(
            embedder, shown, chosen,
            threshold=report.threshold.value, seed=seed, folder=None if out is None else Path(out),
        )  # fmt: skip
    return FameTable1(report, kind, facts, grid)


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
