"""``camlucida verify --pairs``: a whole list, with a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from camlucida.cli.console import console, progress_bar, shown
from camlucida.cli.writing import out_folder, write
from camlucida.errors import ImageError
from camlucida.plain import to_json

if TYPE_CHECKING:
    from camlucida.cli.options import MethodChoice
    from camlucida.explain import MethodLike
    from camlucida.faces.embedder import Embedder
    from camlucida.faces.outcome import VerificationReport
    from camlucida.faces.pairs_file import FacePair, PairList
    from camlucida.faces.side import Which
    from camlucida.report.tables import Table


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
    methods: Sequence[MethodChoice]
    source: Path
    layout: str
    split: int | None
    face: Which
    aligned: bool
    threshold: float | None
    draw: int
    both: bool
    seed: int
    out: Path


def verify_pairs(job: PairsJob) -> dict[str, Any]:
    """Judge a list of pairs, draw some of them, and write a report.

    Lists that say which pairs show one person are run through the Delete and Insert protocol; of others every
    pair is explained. What a former run into the same folder has done is kept.

    Returns:
        What was found, ready for JSON.

    Raises:
        CamlucidaError: the list cannot be read, or the folder holds another benchmark.
    """
    from camlucida.cli.verify import say_left_out, summary
    from camlucida.faces.bench_pairs import listed_pairs
    from camlucida.faces.benchmark import VerificationBenchmark, run_verification
    from camlucida.faces.pair import CARE
    from camlucida.faces.pairs_file import Layout, read_pairs

    listed = read_pairs(job.source, cast("Layout", job.layout), split=job.split, seed=job.seed)
    say_left_out(listed.skipped)
    chosen: list[MethodLike] = [
        (c.name, dict(c.options)) if c.options else c.name for c in job.methods
    ]
    found: dict[str, Any] = {"list": shown(job.source), "layout": listed.layout}
    with out_folder(job.out):
        if listed.genuine and listed.impostor:
            bench = VerificationBenchmark(
                job.embedder,
                listed_pairs(job.embedder, listed, face=job.face, already_aligned=job.aligned),
                chosen,
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
            job_tables = [tables(report, "percentile"), tables(report, "rank")]
            theta: float | None = report.threshold.value
        else:
            report, job_tables, theta = None, [], job.threshold
        drawn = _draw(job, listed, chosen, theta, everything=report is None)
        found["drawn"] = drawn
        found["care"] = CARE
        _write_text(job.out / "verify.json", to_json(found))
        _write_text(job.out / "index.html", _page(found, report, job_tables, drawn))
        for table in job_tables:
            _write_text(job.out / f"{table.name}.csv", table.csv())
    screen = console()
    if report is not None:
        screen.print(summary(found), style="bold", markup=False)
        screen.print(job_tables[0])
    else:
        for one in drawn:
            screen.print(f"{one['pair']}: {one['verdict']}", markup=False, soft_wrap=True)
    screen.print(shown(job.out / "index.html"), markup=False, soft_wrap=True)
    return found


def _write_text(path: Path, text: str) -> None:
    write(path, lambda p: p.write_text(text, encoding="utf-8"))


def tables(report: VerificationReport, rule: str) -> Table:
    """Areas of every method and of random maps, with intervals."""
    from camlucida.report.tables import Cell, Column, Table

    rows = []
    for label, curves in report.curves.items():
        cells = [
            Cell(curve.auc, curve.low, curve.high)
            for curve in (curves[rule, "delete"], curves[rule, "insert"])
        ]
        seconds, empty = report.seconds.get(label), report.empty.get(label)
        rows.append((label, (*cells, Cell(seconds), Cell(empty))))
    return Table(
        name=f"verification-{rule}",
        caption=f"Delete and Insert on {len(report.keys)} pairs, {report.plan['embedder']}, masks by {rule}.",
        columns=(
            Column("Delete", "lower", places=1),
            Column("Insert", "higher", places=1),
            Column("time", "none", "s", places=2),
            Column("empty maps", "none", places=0),
        ),
        rows=tuple(rows),
        legend="Area under the verification accuracy as P % of the probe's pixels are deleted or inserted, "
        "times 100; 95 % bootstrap intervals over people. Random patches are as smooth as FAME's maps; "
        "random pixels destroy every face.",
    )


def _draw(
    job: PairsJob,
    listed: PairList,
    methods: Sequence[MethodLike],
    threshold: float | None,
    *,
    everything: bool,
) -> list[dict[str, Any]]:
    """Explain and draw some pairs, or all; those that are there already are left."""
    from camlucida.faces.pair import explain_pair
    from camlucida.faces.side import face_photo

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
                    done.append(
                        {"pair": _name(pair), "verdict": f"left out: {error}", "grid": None}
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
                _write_text(job.out / "pairs" / f"{stem}.done.json", to_json(record))
            done.append({k: v for k, v in record.items() if k != "wanted"})
            bar.update(task, completed=number + 1)
    return done


def _wanted(
    job: PairsJob, pair: FacePair, methods: Sequence[MethodLike], threshold: float | None
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


def _page(
    found: dict[str, Any],
    report: VerificationReport | None,
    job_tables: Sequence[Table],
    drawn: Sequence[dict[str, Any]],
) -> str:
    import base64
    from html import escape

    from camlucida.cli.verify import summary
    from camlucida.faces.pair import CARE
    from camlucida.render import png
    from camlucida.report.page import Document, Section, paragraph

    def picture(content: bytes, caption: str) -> str:
        data = base64.b64encode(content).decode()
        return (
            f'<figure><img style="max-width:100%" alt="{escape(caption)}" '
            f'src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'
        )

    sections = []
    lead = [f"{len(drawn)} pairs of {found['list']}."]
    if report is not None:
        lead = [summary(found)]
        sections += [
            Section("methods", "Which maps name the pixels that decide", [
                *job_tables, picture(png(report.figure()), "Accuracy as pixels are deleted and inserted")
            ]),
            Section("scores", "The pairs as they are", [
                picture(png(report.score_figure()), "Scores, error rates and ROC of the unaltered pairs")
            ]),
        ]  # fmt: skip
    parts: list[str | Table] = []
    for one in drawn:
        parts.append(paragraph(f"{one['pair']}: {one['verdict']}"))
        if one["grid"]:
            parts.append(f'<p><a href="{escape(one["grid"])}">its maps</a></p>')
    if parts:
        sections.append(Section("pairs", "Pairs", parts))
    sections.append(
        Section("care", "What these maps show, and what they do not", [paragraph(CARE)])
    )
    return Document("Face verification", lead, sections).html()
