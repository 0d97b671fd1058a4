"""``camlucida report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import complain, console, print_json, progress_bar, shown
from camlucida.cli.shared.model import DETAILS, NOBODY, Chosen, takes_model
from camlucida.cli.shared.options import (
    AsJson,
    Device,
    model_option,
    option,
    out_option,
    refuse_unused,
)
from camlucida.common.errors import CamlucidaError


@takes_model
def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder that camlucida evaluate wrote.")
    ],
    context: typer.Context,
    out: Annotated[
        Path | None, out_option("The page that is written. (default: RUN/report.html)", "FILE")
    ] = None,
    gallery: Annotated[
        bool,
        typer.Option(
            "--gallery/--no-gallery",
            help="Show maps of some photos, or numbers only; then neither the model nor the photos are needed.",
        ),
    ] = True,
    data: Annotated[
        str | None,
        option("DATA", "Where the photos lie now. (default: where they were in the run)"),
    ] = None,
    model: Annotated[Chosen, model_option("(default: the model of the run)")] = NOBODY,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make a web page of a benchmark: which method is best on the model, and how certain that is.

    The page is one file that loads nothing; its tables lie beside it as CSV and LaTeX. The maps on it are computed
    again, so the photos and the model must be where they were in the run, or be given.
    """
    from camlucida.benchmark import RunFolder
    from camlucida.benchmark.report.gallery import model_of
    from camlucida.benchmark.report.run_report import compose, page_of, save
    from camlucida.benchmark.report.wording import headline
    from camlucida.cli.summary import document
    from camlucida.data.open import parse

    if not gallery:
        refuse_unused(
            context,
            ("data", "model", *DETAILS, "device"),
            "with the gallery, not with --no-gallery",
        )
    if out is not None and not out.is_dir() and out.suffix.lower() not in {".html", ".htm"}:
        raise CamlucidaError(
            f"the page must be called .html, or be a folder that exists, not '{shown(out)}'"
        )
    if data is not None:
        parse(data)
    loaded = None
    if device is not None or model.name is not None or model.how:
        loaded = model_of(RunFolder(run).plan(), model.name, device, **model.how)
    page = page_of(run, out)
    with progress_bar() as bar:
        task = bar.add_task("explaining", total=None)
        composed = compose(
            run,
            gallery=gallery,
            model=loaded,
            data=data,
            progress=lambda done, total: bar.update(task, completed=int(done), total=int(total)),
        )
        tables = save(composed, page)
    said = headline(composed.results.summary)
    if as_json:
        print_json({
            "report": shown(page),
            "tables": shown(tables),
            "said": said,
            "notes": composed.notes,
            "summary": document(composed.results.summary),
        })  # fmt: skip
        return
    for note in composed.notes:
        complain(note)
    for text in said:
        console().print(text)
    console().print(shown(page), soft_wrap=True)
    console().print(shown(tables), soft_wrap=True)
