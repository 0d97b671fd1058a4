"""A whole list of pairs verified: judged by deleting and inserting pixels, some pairs drawn, one page written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from camlucida.common.errors import ImageError
from camlucida.common.files import locked, stamp, unchanged
from camlucida.common.printable import name_of, printable
from camlucida.common.progress import Say, part
from camlucida.common.provenance import fingerprint
from camlucida.common.store import Store
from camlucida.explanation.explain import MethodLike
from camlucida.faces.bench_pairs import listed_pairs
from camlucida.faces.embedder import Embedder
from camlucida.faces.page import DrawnPair, verification_page, verification_table
from camlucida.faces.pair import CARE, explain_pair
from camlucida.faces.pair_side import WhichFace
from camlucida.faces.pairs_file import FacePair, PairList, read_pairs
from camlucida.faces.verification import VerificationBenchmark, run_verification
from camlucida.faces.verification_report import VerificationReport
from camlucida.report import Table, save


@dataclass(frozen=True, eq=False)
class VerifiedList:
    r"""What was found about a list of pairs.

    Attributes:
        embedder: the network's name.
        listed: the pairs.
        report: the report of the Delete and Insert protocol; ``None`` where the list does not say who is who.
        drawn: of each pair that was drawn its name, verdict, and the file of its maps in ``folder``.
        folder: the folder with all results.
        seed: the seed of everything that was drawn.

    Example:
        >>> found = camlucida.faces.verify_pairs(embedder, "two.csv", "out", methods=["saliency"], draw=0)
        >>> found.summary
        '2 pairs (1 genuine): threshold ...'
    """

    embedder: str
    listed: PairList
    report: VerificationReport | None
    drawn: tuple[dict[str, Any], ...]
    folder: Path
    seed: int

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """Areas of the methods, one table for each way of ranking pixels."""
        report = self.report
        return () if report is None else tuple(verification_table(report, r) for r in report.rules)

    @property
    def summary(self) -> str:
        """Threshold and errors of the list in a sentence."""
        report = self.report
        if report is None:
            return f"{len(self.drawn)} pairs of {printable(self.listed.source)}."
        return f"{len(report.keys)} pairs ({int(report.same.sum())} genuine): {report.decided}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "list": printable(self.listed.source),
            "layout": self.listed.layout,
            **({} if self.report is None else self.report.to_dict()),
            "drawn": list(self.drawn),
            "care": CARE,
        }

    def html(self) -> str:
        """One page with everything in it; nothing is fetched."""
        pairs = [
            DrawnPair(one["pair"], one["verdict"], one["same"], one["grid"] and self.folder / one["grid"])
            for one in self.drawn
        ]  # fmt: skip
        facts = [("network", self.embedder), ("list", printable(self.listed.source))]
        return verification_page(
            "Face verification",
            [self.summary],
            report=self.report,
            tables=self.tables,
            drawn=pairs,
            facts=[*facts, ("seed", str(self.seed))],
        ).html()


def verify_pairs(
    embedder: Embedder,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    methods: Sequence[MethodLike] = ("fame:iterations=75",),
    layout: str = "auto",
    split: int | None = None,
    face: WhichFace = "largest",
    aligned: bool = False,
    threshold: float | None = None,
    draw: int = 8,
    both: bool = False,
    seed: int = 0,
    verify_data: bool = False,
    say: Say | None = None,
) -> VerifiedList:
    r"""Judge a list of pairs, draw some of them, and write a report.

    Lists that say which pairs show one person are run through the Delete and Insert protocol; of others every
    pair is explained. What a former call for the same folder has done is kept.

    Args:
        embedder: the network.
        source: the list, see :func:`read_pairs`.
        out: the folder of the results: ``index.html``, ``verify.json``, the tables, and the pairs that are drawn.
        methods: the methods, as for :func:`explain_pair`.
        layout: the layout of the list, see :func:`read_pairs`.
        split: one fold of LFW or CFP; all by default.
        face: which one is meant of several faces in a photo.
        aligned: photos are aligned crops.
        threshold: the threshold of the similarity; by default that of the equal error rate.
        draw: pairs that are drawn too, spread over the list.
        both: alter the gallery photo by its own map too; by default the probe only.
        seed: the seed of everything that is drawn.
        verify_data: see :func:`run_verification`.
        say: is told about the progress.

    Raises:
        CamlucidaError: the list cannot be read, or the folder holds the results of another plan.

    Example:
        >>> found = camlucida.faces.verify_pairs(embedder, "two.csv", "out", methods=["saliency"], draw=0)
        >>> [table.name for table in found.tables]
        ['verification-percentile', 'verification-rank']
    """
    listed = read_pairs(source, layout, split=split, seed=seed)
    folder = Path(out)
    with locked(folder):
        report: VerificationReport | None = None
        if listed.genuine and listed.impostor:
            bench = VerificationBenchmark(
                embedder,
                listed_pairs(embedder, listed, face=face, aligned=aligned),
                methods,
                both=both,
                threshold="eer" if threshold is None else threshold,
                seed=seed,
            )
            report = run_verification(
                bench, folder / "run", verify_data=verify_data, progress=part(say, "verifying")
            )
            threshold = report.threshold.value
        count = len(listed) if report is None else min(draw, len(listed))
        theta = embedder.threshold if threshold is None else threshold
        key = {
            "embedder": [embedder.name, fingerprint(embedder.module)],
            "methods": [str(method) for method in methods],
            "threshold": theta,
            "seed": seed,
        }

        def drawn(stem: str, pair: FacePair) -> dict[str, Any]:
            explained = explain_pair(
                embedder, pair.probe, pair.gallery, method=list(methods), threshold=theta, seed=seed,
                face=face, aligned=aligned,
            )  # fmt: skip
            files = explained.save(folder / "pairs" / stem)
            found = {
                "similarity": explained.similarity,
                "match": explained.match,
                "verdict": explained.verdict,
                "grid": str(files["grid"].relative_to(folder)),
            }
            written = {str(file.relative_to(folder)): stamp(file) for file in files.values()}
            return {"found": found, "files": written}

        def whole(kept: dict[str, Any]) -> bool:
            return all(unchanged(folder / name, known) for name, known in kept["files"].items())

        done: list[dict[str, Any]] = []
        for number in range(count):
            pair = listed.pairs[int(number * len(listed) / count)]
            stem = f"pair-{number:04d}"
            photos = [
                [str(photo), (stamp(photo) or [None])[-1]] for photo in (pair.probe, pair.gallery)
            ]
            store = Store(folder / "pairs", {**key, "photos": photos})
            try:
                found = store.value(stem, partial(drawn, stem, pair), whole)["found"]
            except ImageError as error:
                found = {"verdict": f"left out: {error}", "grid": None}
            name = f"{name_of(pair.probe)} - {name_of(pair.gallery)}"
            done.append({"pair": name, "same": pair.same, **found})
            if say is not None:
                say("drawing", number + 1, count)
        verified = VerifiedList(embedder.name, listed, report, tuple(done), folder, seed)
        save(
            folder,
            "verify",
            verified.html(),
            verified.to_dict(),
            verified.tables,
            page_name="index",
        )
        return verified
