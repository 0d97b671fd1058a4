"""``camlucida explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.console import console, print_json, shown
from camlucida.cli.options import parse_method, parse_target
from camlucida.version import __version__


def explain(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Picture files, or folders of them.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|FILE",
            help="embedded, torchvision:NAME, timm:NAME, hf:ORG/NAME, or a checkpoint file.",
        ),
    ] = "embedded",
    architecture: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a checkpoint file, such as timm:resnet18."),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="One name per line, or a JSON list."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="METHOD",
            help="NAME or NAME:key=value,key=value; several are shown side by side. "
            "See camlucida methods. (default: gradcam)",
        ),
    ] = None,
    class_: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="CLASS", help="Name or index. (default: the predicted one)"
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="LAYER",
            help="Several are fused. See camlucida layers. (default: the last feature map)",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="TARGET",
            help="logit, margin, probability, log-probability, exp-logit or cell, with options "
            "as in margin:aggregator=max or cell:layer=NAME,row=2,col=3.",
        ),
    ] = "logit",
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="How raw maps are scaled: pytorch-grad-cam or signed. (default: the method's own)",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of methods that draw random numbers.")] = 0,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Such as cuda. (default: cpu)")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos explained at a time.")] = 8,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the pictures, maps and records go.")
    ] = Path("camlucida-out"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
) -> None:
    """Explain what a model saw in photos.

    Writes an overlay, the maps and a record for every photo, and a comparison of several methods.
    A photo that cannot be read is reported, and the others are done.

    [bold]camlucida explain photos/ --method gradcam --method diffgradcam:aggregator=max --class tabby[/]
    """
    from camlucida.cli.job import Job, Outcome, check, run
    from camlucida.cli.photos import collect
    from camlucida.models import load_model

    wanted = parse_target(target, class_)
    choices = [parse_method(text, wanted) for text in method or ["gradcam"]]
    loaded = load_model(model, architecture=architecture, class_names=class_names, device=device)
    resolved = check(loaded, wanted, layer or [], steps)
    outcome = Outcome()
    files, unusable = collect(photos, out)
    for path, reason in unusable:
        outcome.fail(path, reason)
    job = Job(loaded, choices, resolved, layer or [], steps, seed, batch_size, out)
    if files:
        run(job, files, outcome)
    if as_json:
        print_json({
            "camlucida": __version__,
            "model": loaded.name,
            "out": shown(out),
            "interrupted": outcome.interrupted,
            "photos": outcome.done,
            "failed": [{"photo": shown(p), "reason": reason} for p, reason in outcome.failed],
        })  # fmt: skip
    else:
        from camlucida.cli.results import show

        show(outcome.done, out, console())
    raise typer.Exit(outcome.exit_code)
