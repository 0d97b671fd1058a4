"""``camlucida report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camlucida.cli.console import complain, console, print_json, progress_bar, shown

if TYPE_CHECKING:
    from camlucida.models import LoadedModel


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder that camlucida evaluate wrote.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page. (default: RUN/report.html)"),
    ] = None,
    no_gallery: Annotated[
        bool,
        typer.Option("--no-gallery", help="Numbers only; neither model nor photos are needed."),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Where the photos lie now. (default: as in the run)"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME|FILE", help="(default: as in the run)"),
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="D", help="Such as cuda.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
) -> None:
    """Make a web page of a benchmark: which method is best on the model, and how certain that is.

    The page is one file that loads nothing; its tables lie beside it as CSV and LaTeX. The maps it shows are
    computed again, so the photos and the model have to be where they were, or be given.
    """
    from camlucida.report.run_report import compose, page_of, save
    from camlucida.report.wording import headline

    loaded = None
    if device is not None and not no_gallery:
        loaded = _loaded(run, model, device)
    page = page_of(run, out)
    with progress_bar() as bar:
        task = bar.add_task("explaining", total=None)
        composed = compose(
            run,
            galleries=not no_gallery,
            model=loaded or model,
            data=data,
            progress=lambda done, total: bar.update(task, completed=int(done), total=int(total)),
        )
        tables = save(composed, page)
    said = headline(composed.results, composed.findings)
    if as_json:
        print_json({
            "report": shown(page),
            "tables": shown(tables),
            "said": said,
            "notes": composed.notes,
            "summary": composed.results.summary.to_dict(),
        })  # fmt: skip
        return
    for note in composed.notes:
        complain(note)
    for text in said:
        console().print(text, markup=False)
    console().print(shown(page), markup=False, soft_wrap=True)
    console().print(shown(tables), markup=False, soft_wrap=True)


def _loaded(run: Path, model: str | None, device: str) -> LoadedModel:
    """The model of a run, on a device."""
    from camlucida.benchmark.shards import RunFolder
    from camlucida.models import load_model

    plan = RunFolder(run).plan()
    name = model or str((plan.get("how") or {}).get("model") or plan["model"]["name"])
    return load_model(name, architecture=plan["model"].get("architecture"), device=device)
