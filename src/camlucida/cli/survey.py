"""``camlucida survey make`` and ``camlucida survey tally``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import complain, print_lines, print_result, progress, shown
from camlucida.cli.shared.model import EMBEDDED, Model, takes_model
from camlucida.cli.shared.options import (
    AsJson,
    BatchSize,
    ClassName,
    Command,
    Device,
    Photos,
    methods_option,
    option,
    out_option,
    seed_option,
)
from camlucida.cli.shared.writing import out_folder, write, write_text
from camlucida.common.errors import CamlucidaError

survey = typer.Typer(help="Ask people, blindly, which method's maps they find best.")


@survey.command(cls=Command)
@takes_model
def make(
    folder: Photos,
    method: Annotated[
        list[str], methods_option("", "Repeat the option; at least two methods are compared.")
    ],
    model: Model = EMBEDDED,
    class_: ClassName = None,
    question: Annotated[
        str | None,
        option(
            "TEXT",
            "The question about each photo. (default: which map shows best where the object is and why)",
        ),
    ] = None,
    seed: Annotated[
        int, seed_option("the order of the maps, and of methods that draw random numbers")
    ] = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    out: Annotated[Path, out_option("The page that is written.", "FILE")] = Path("survey.html"),
) -> None:
    """Write a page that asks which map is best, and the key that says whose map it is.

    The page holds everything, names no method and sends nothing: people who answer download a file with their
    answers and send it to you. The key (survey.key.json) stays with you.
    """
    from dataclasses import replace

    from camlucida.cli.shared.opening import known_methods
    from camlucida.cli.shared.photos import collect
    from camlucida.common.errors import ImageError
    from camlucida.data import read_image
    from camlucida.explanation import Comparison
    from camlucida.explanation.explain import explain
    from camlucida.studies.survey import QUESTION, key_file, make_survey, save_key
    from camlucida.targets import Logit

    if out.suffix.lower() not in {".html", ".htm"}:
        raise CamlucidaError(f"the page must be called .html, not '{shown(out)}'")
    target = Logit(class_)
    methods = known_methods(method, target)
    files, unusable = collect(folder, out.with_suffix(".files"))
    for _, reason in unusable:
        complain(reason)
    good, pictures = [], []
    for file in files:
        try:
            pictures.append(read_image(file))
            good.append(shown(file))
        except ImageError as error:
            complain(f"left out: {error}")
    if not pictures:
        raise CamlucidaError("there is no photo for the survey")
    loaded = model.load(device)
    with out_folder(out.parent), progress("explaining") as advance:
        found = explain(
            loaded,
            pictures,
            method=methods,
            target=target,
            seed=seed,
            batch_size=batch_size,
            progress=advance,
            strict=True,
        )
        named = [replace(one, sources=tuple(good)) for one in found.values()]
        made = make_survey(Comparison(named), question=question or QUESTION, seed=seed)
        written = [
            write_text(out, made.html),
            write(key_file(out), lambda p: save_key(made, p)),
        ]
    print_lines(
        *written,
        f"survey {made.id}: hand out the page, keep the key; then camlucida survey tally KEY ANSWERS...",
    )


@survey.command(cls=Command)
def tally(
    key: Annotated[
        Path, typer.Argument(metavar="KEY", help="The key that camlucida survey make wrote.")
    ],
    answers: Annotated[
        list[Path], typer.Argument(metavar="ANSWERS...", help="The files with the answers.")
    ],
    permutations: Annotated[int, option("N", "How many permutations the test draws.", 1)] = 9999,
    seed: Annotated[int, seed_option("the permutation test")] = 0,
    as_json: AsJson = False,
) -> None:
    """Count the answers: wins per method, their spread over people, and whether they could be chance."""
    from camlucida.studies.survey import tally as count

    result = count(key, answers, permutations=permutations, seed=seed)
    print_result(result, result.to_dict(), [], as_json=as_json)
