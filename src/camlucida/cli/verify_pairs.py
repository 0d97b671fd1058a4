"""``camlucida verify --pairs``: a whole list, with a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from camlucida.cli.shared.console import (
    complain,
    console,
    print_table,
    progress_bar,
    shown,
)
from camlucida.cli.shared.writing import out_folder
from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.files import write_bytes
from camlucida.common.jsonable import to_json

if TYPE_CHECKING:
    from camlucida.faces.embedder import Embedder
    from camlucida.faces.pair_side import WhichFace
    from camlucida.faces.pairs_file import FacePair, Layout, PairList


@dataclass(frozen=True)
class PairsJob:
    """What ``camlucida verify --pairs`` was asked to do.

    Attributes:
        embedder: the network.
        methods: as chosen.
        source: the list.
        layout: of the list.
        split: one fold, or all.
        face: which of several faces in a photo.
        aligned: photos are aligned crops.
        threshold: ``None`` for the equal error rate's.
        draw: pairs that are drawn, spread over the list.
        both: alter the gallery photo too.
        seed: of everything that is drawn.
        out: the folder of the results.
    """

    embedder: Embedder
    methods: Sequence[str]
    source: Path
    layout: str
    split: int | None
    face: WhichFace
    aligned: bool
    threshold: float | None
    draw: int
    both: bool
    seed: int
    out: Path


def verify_pairs(job: PairsJob, *, quiet: bool = False) -> dict[str, Any]:
    """Judge a list of pairs, draw some of them, and write a report.

    Lists that say which pairs show one person are run through the Delete and Insert protocol; of others every
    pair is explained. What a former run into the same folder has done is kept.

    Args:
        job: what to do.
        quiet: print nothing.

    Returns:
        What was found, ready for JSON.

    Raises:
        CamlucidaError: the list cannot be read, or the folder holds another benchmark.
    """
    from camlucida.faces.bench_pairs import listed_pairs
    from camlucida.faces.page import DrawnPair, verification_page, verification_table
    from camlucida.faces.pair import CARE
    from camlucida.faces.pairs_file import read_pairs
    from camlucida.faces.verification import VerificationBenchmark, run_verification

    layout, options = parse_layout(job.layout)
    listed = read_pairs(job.source, layout, split=job.split, seed=job.seed, **options)  # type: ignore[arg-type]
    say_left_out(listed.skipped)
    found: dict[str, Any] = {"list": shown(job.source), "layout": listed.layout}
    with out_folder(job.out):
        if listed.genuine and listed.impostor:
            bench = VerificationBenchmark(
                job.embedder,
                listed_pairs(job.embedder, listed, face=job.face, already_aligned=job.aligned),
                job.methods,
                sides="both" if job.both else "probe",
                threshold="eer" if job.threshold is None else job.threshold,
                seed=job.seed,
            )
            with progress_bar() as bar:
                task = bar.add_task("verifying", total=None)
                report = run_verification(
                    bench,
                    job.out / "run",
                    progress=lambda done, total: bar.update(
                        task, completed=int(done), total=int(total)
                    ),
                )
            say_left_out(report.errors)
            found |= report.to_dict()
            tables = [verification_table(report, rule) for rule in report.plan["rules"]]
            theta: float | None = report.threshold.value
        else:
            report, tables, theta = None, [], job.threshold
        drawn = _draw(job, listed, job.methods, theta, everything=report is None)
        found["drawn"] = drawn
        found["care"] = CARE
        lead = [summary(found) if report is not None else f"{len(drawn)} pairs of {found['list']}."]
        pairs = [
            DrawnPair(
                one["pair"], one["verdict"], one["same"], one["grid"] and job.out / one["grid"]
            )
            for one in drawn
        ]
        facts = [("network", job.embedder.name), ("list", found["list"]), ("seed", str(job.seed))]
        page = verification_page(
            "Face verification", lead, report=report, tables=tables, drawn=pairs, facts=facts
        )
        write_bytes(job.out / "verify.json", to_json(found).encode())
        for table in tables:
            write_bytes(job.out / f"{table.name}.csv", table.csv().encode())
            write_bytes(job.out / f"{table.name}.tex", table.latex().encode())
        write_bytes(job.out / "index.html", page.html().encode())
    if quiet:
        return found
    screen = console()
    if report is not None:
        screen.print(summary(found), style="bold", markup=False)
        for table in tables:
            print_table(screen, table)
    else:
        for one in drawn:
            screen.print(f"{one['pair']}: {one['verdict']}", markup=False, soft_wrap=True)
    screen.print(shown(job.out / "index.html"), markup=False, soft_wrap=True)
    return found


def parse_layout(text: str) -> tuple[Layout, dict[str, str]]:
    """A layout and its options from ``name:key=value``, such as ``scface:distance=far``.

    Raises:
        CamlucidaError: the layout has no such option.
    """
    from camlucida.common.grammar import split

    name, options = split(text)
    known = {"ar": "wear", "scface": "distance"}.get(name)
    wrong = [key for key in options if key != known]
    if wrong:
        raise CamlucidaError(
            f"layout {name!r} has no option {wrong[0]!r}; there are ar:wear=glass|scarf|neutral and "
            "scface:distance=far|medium|close"
        )
    return cast("Layout", name), options


def _draw(
    job: PairsJob,
    listed: PairList,
    methods: Sequence[str],
    threshold: float | None,
    *,
    everything: bool,
) -> list[dict[str, Any]]:
    """Explain and draw some pairs, or all; those that are there already are left."""
    from camlucida.faces.pair import explain_pair
    from camlucida.faces.pair_side import face_photo

    count = len(listed.pairs) if everything else min(job.draw, len(listed.pairs))
    step = len(listed.pairs) / max(count, 1)
    chosen = [listed.pairs[int(i * step)] for i in range(count)]
    theta = job.embedder.threshold if threshold is None else threshold
    done: list[dict[str, Any]] = []
    with progress_bar() as bar:
        task = bar.add_task("drawing", total=count)
        for number, pair in enumerate(chosen):
            stem = f"pair-{number:04d}"
            wanted = _wanted(job, pair, methods, theta)
            record = _kept(job.out / "pairs" / f"{stem}.done.json", wanted)
            if record is None:
                try:
                    sides = [
                        face_photo(job.embedder, path, face=job.face, already_aligned=job.aligned)
                        for path in (pair.probe, pair.gallery)
                    ]
                    explained = explain_pair(
                        job.embedder, *sides, method=list(methods), threshold=theta, seed=job.seed
                    )
                except ImageError as error:
                    verdict = f"left out: {error}"
                    done.append(
                        {"pair": _name(pair), "same": pair.same, "verdict": verdict, "grid": None}
                    )
                    continue
                files = explained.save(job.out / "pairs", stem)
                record = {
                    "pair": _name(pair),
                    "same": pair.same,
                    "similarity": explained.similarity,
                    "match": explained.match,
                    "verdict": explained.verdict,
                    "grid": str(files["grid"].relative_to(job.out)),
                    "wanted": wanted,
                }
                write_bytes(job.out / "pairs" / f"{stem}.done.json", to_json(record).encode())
            done.append({k: v for k, v in record.items() if k != "wanted"})
            bar.update(task, completed=number + 1)
    return done


def _wanted(
    job: PairsJob, pair: FacePair, methods: Sequence[str], threshold: float | None
) -> dict[str, Any]:
    return {
        "probe": str(pair.probe), "gallery": str(pair.gallery), "methods": [str(m) for m in methods],
        "threshold": threshold, "embedder": job.embedder.name, "seed": job.seed,
    }  # fmt: skip


def _kept(path: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a pair that a former run drew in the same way."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("wanted") == wanted else None


def _name(pair: FacePair) -> str:
    return f"{shown(pair.probe.name)} - {shown(pair.gallery.name)}"


def say_left_out(reasons: Sequence[str]) -> None:
    """Photos that could not be used, a few of them in full."""
    for text in reasons[:5]:
        complain(f"left out: {text}")
    if len(reasons) > 5:
        complain(f"and {len(reasons) - 5} more")


def summary(found: dict[str, Any]) -> str:
    """Threshold and errors of a list in a sentence."""
    return (
        f"{found['pairs']} pairs ({found['genuine']} genuine): threshold {found['threshold']:.4f}, "
        f"FMR {found['fmr']:.1%}, FNMR {found['fnmr']:.1%}, right {found['clean_accuracy']:.1%}"
    )
