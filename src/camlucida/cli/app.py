"""``camlucida app``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import print_lines
from camlucida.cli.shared.model import EMBEDDED, Chosen, Model, takes_model
from camlucida.cli.shared.options import Device, option


@takes_model
def app(
    model: Model = EMBEDDED,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside",
            metavar="NAME",
            help="Another model, to be compared with the first; repeat the option for several.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        option("KIND|PATH", "A data set to look through, as camlucida evaluate takes it."),
    ] = None,
    audit: Annotated[
        Path | None,
        option("FOLDER", "What camlucida audit all wrote: each method is shown with its grade."),
    ] = None,
    port: Annotated[int, option("N", "The port; 0 takes a free one.", 0)] = 7432,
    host: Annotated[
        str,
        option(
            "ADDRESS",
            "The address that is listened on; one that other machines reach needs --token, and is not encrypted.",
        ),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        option("SECRET", "What a browser has to show; it is part of the address that is printed."),
    ] = None,
    job_seconds: Annotated[
        float, option("S", "How long one request may keep the model busy.", 1)
    ] = 300.0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
    device: Device = None,
) -> None:
    """See, compare and check maps in a browser.

    The page runs on this machine: photos that are dropped on it stay in memory, nothing is fetched or sent elsewhere.
    """
    from camlucida.app import serve
    from camlucida.app.question import Written
    from camlucida.common.optional import require

    require("uvicorn", "app")
    others = [Chosen(name) for name in beside or ()]
    loaded = [one.load(device) for one in (model, *others)]
    on = {} if device is None else {"device": device}
    written = [Written(one.name or "embedded", {**one.how, **on}) for one in (model, *others)]
    serve(
        loaded, data=data, audit=audit, host=host, port=port, token=token, job_seconds=job_seconds,
        written=written, browser=browser, say=print_lines,
    )  # fmt: skip
