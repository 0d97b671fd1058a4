"""``camlucida audit sanity`` and ``camlucida audit all``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.console import console, print_json, progress_bar, shown
from camlucida.cli.options import parse_method
from camlucida.cli.writing import out_folder, write

if TYPE_CHECKING:
    from camlucida.audits.trust.audit import TrustReport
    from camlucida.data.samples import DataSet
    from camlucida.models import LoadedModel

Model = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME|FILE", help="As for camlucida explain.")
]
Architecture = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a checkpoint file, such as timm:resnet18.")
]
ClassNames = Annotated[
    Path | None, typer.Option(metavar="FILE", help="One name per line, or a JSON list.")
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="KIND|PATH",
        help="As for camlucida evaluate: photos, digits, or a folder. "
        "(default: digits for the model digits, else photos)",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="METHOD",
        help="NAME or NAME:key=value,key=value; repeat it for several. (default: those of few passes; all with "
        "--full)",
    ),
]
Layer = Annotated[
    str | None, typer.Option(metavar="NAME", help="The explained layer. (default: the last map)")
]
Count = Annotated[int | None, typer.Option(metavar="N", min=1, help="Images at most.")]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick/--full",
        help="A few minutes on two cores, or everything. Both go on where they stopped.",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of everything that is drawn.")]
BatchSize = Annotated[int, typer.Option(metavar="N", min=1, help="Images at a time.")]
Device = Annotated[str | None, typer.Option(metavar="D", help="Such as cuda.")]
Labels = Annotated[
    bool,
    typer.Option(
        "--labels/--no-labels", help="Train two small networks for the check with shuffled labels."
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where report and finished parts go.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def sanity(
    model: Model = "embedded",
    architecture: Architecture = None,
    class_names: ClassNames = None,
    data: Data = None,
    method: Methods = None,
    layer: Layer = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="Redraw each group of weights alone too.")
    ] = False,
    labels: Labels = True,
    count: Count = None,
    batch_size: BatchSize = 16,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Does a map change when the model changes, and only then?

    Weights redrawn from the output down, labels shuffled, inputs and logits shifted, another class, sums that
    methods promise, repetition, batches: each passed or failed, with the number and its bound.
    """
    from camlucida.audits.sanity.audit import audit_sanity

    chosen = _methods(method)
    loaded, images = _open(model, architecture, class_names, device, data)
    with out_folder(out), progress_bar() as bar:
        report = audit_sanity(
            loaded,
            images,
            methods=chosen,
            layer=layer,
            count=count,
            quick=quick,
            independent=independent,
            data=labels,
            seed=seed,
            batch_size=batch_size,
            folder=out,
            say=_say(bar),
        )
        files = report.save(out)
    if as_json:
        print_json(report.to_dict())
        return
    place = console()
    place.print(report.summary, soft_wrap=True)
    place.print(report)
    for file in files:
        place.print(shown(file), markup=False, soft_wrap=True)


def all_(
    model: Model = "embedded",
    architecture: Architecture = None,
    class_names: ClassNames = None,
    data: Data = None,
    method: Methods = None,
    audit: Annotated[
        list[str] | None,
        typer.Option("--audit", metavar="NAME", help="Only these; repeat it. (default: all)"),
    ] = None,
    layer: Layer = None,
    labels: Labels = True,
    count: Count = None,
    batch_size: BatchSize = 16,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Which methods are safe on this model, for which question, and why?

    Every audit that fits any classifier is run, and one report says in plain words whom to trust:
    [bold]trust.html[/], with the audits' own pages beside it.
    """
    from camlucida.audits.trust.audit import audit_all

    chosen = _methods(method)
    loaded, images = _open(model, architecture, class_names, device, data)
    with out_folder(out), progress_bar() as bar:
        report = audit_all(
            loaded,
            images,
            methods=chosen,
            names=audit,
            layer=layer,
            count=count,
            quick=quick,
            labels=labels,
            seed=seed,
            batch_size=batch_size,
            folder=out,
            say=_say(bar),
        )
        files = _save(report, out)
    if as_json:
        print_json(report.to_dict())
        return
    _show(report, files)


def _methods(texts: Sequence[str] | None) -> list[str | tuple[str, Mapping[str, Any]]] | None:
    if not texts:
        return None
    choices = [parse_method(text) for text in texts]
    return [(c.name, c.options) for c in choices]


def _open(
    model: str,
    architecture: str | None,
    class_names: Path | None,
    device: str | None,
    data: str | None,
) -> tuple[LoadedModel, DataSet]:
    from camlucida.data.open import open_data
    from camlucida.models import load_model

    loaded = load_model(model, architecture=architecture, class_names=class_names, device=device)
    spec = data or ("digits" if loaded.name == "digits" else "photos")
    return loaded, open_data(spec, class_names=loaded.class_names)


def _say(bar: Any) -> Any:
    task = bar.add_task("starting", total=None)

    def say(what: str, done: float, total: float) -> None:
        bar.update(task, description=what, completed=int(done), total=int(total) or 1)

    return say


def _save(report: TrustReport, out: Path) -> list[Path]:
    from camlucida.report.trust_page import trust_document

    page = trust_document(report).html().encode()
    return [write(out / "trust.html", lambda p: p.write_bytes(page)), *report.save(out)]


def _show(report: TrustReport, files: Sequence[Path]) -> None:
    from camlucida.audits.trust.audit import advice
    from camlucida.report.trust_page import overview

    place = console()
    place.print(overview(report).rich())
    for line in advice(report):
        place.print(line, markup=False, soft_wrap=True)
    for title, why in report.missing.items():
        place.print(f"Not run: {title}: {why}", markup=False, soft_wrap=True)
    place.print(shown(files[0]), markup=False, soft_wrap=True)
