"""``camlucida survey make`` and ``camlucida survey tally``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import complain, console, print_json, progress_bar, shown
from camlucida.cli.shared.options import (
    Architecture,
    AsJson,
    BatchSize,
    ClassName,
    Command,
    Device,
    Model,
    Photos,
    methods_option,
    out_option,
    seed_option,
)
from camlucida.cli.shared.writing import out_folder, write
from camlucida.common.errors import CamlucidaError

survey = typer.Typer(help="A blind survey: which method's maps do people find best?")


@survey.command(cls=Command)
def make(
    folder: Photos,
    method: Annotated[list[str], methods_option("", "at least two")],
    model: Model = "embedded",
    architecture: Architecture = None,
    class_: ClassName = None,
    question: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="What is asked. (default: which map shows best where and why)"
        ),
    ] = None,
    seed: Annotated[int, seed_option("the order, and of methods that draw")] = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    out: Annotated[Path, out_option("The page.", "FILE")] = Path("survey.html"),
) -> None:
    """Write a page that asks which map is best, and the key that says whose map it is.

    The page holds everything, names no method, and sends nothing: whoever answers downloads a file with the
    answers. The key (survey.key.json) stays with you.
    """
    from dataclasses import replace

    from camlucida.cli.shared.photos import collect
    from camlucida.common.errors import ImageError
    from camlucida.data import read_image
    from camlucida.explanation import Comparison, Explanation
    from camlucida.explanation.explain import explain
    from camlucida.methods import build
    from camlucida.models import load_model
    from camlucida.studies.survey import QUESTION, key_file, make_survey, save_key
    from camlucida.targets import Logit

    if out.suffix.lower() not in {".html", ".htm"}:
        raise CamlucidaError(f"the page must be called .html, not '{shown(out)}'")
    target = Logit(class_)
    for text in method:
        build(text, target)  # now, so that no model is loaded for a wrong word
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
    loaded = load_model(model, architecture=architecture, device=device)
    with out_folder(out.parent), progress_bar() as bar:
        task = bar.add_task("explaining", total=len(method))
        found: list[Explanation] = []
        for number, text in enumerate(method):

            def report(done: float, total: float, before: int = number) -> None:
                bar.update(task, completed=before + done / total)

            one = explain(
                loaded,
                pictures,
                method=text,
                target=target,
                seed=seed,
                batch_size=batch_size,
                progress=report,
            )
            found.append(replace(one, sources=tuple(good)))
        made = make_survey(Comparison(found), question=question or QUESTION, seed=seed)
        written = [
            write(out, lambda p: p.write_text(made.html, encoding="utf-8")),
            write(key_file(out), lambda p: save_key(made, p)),
        ]
    for file in written:
        console().print(shown(file), markup=False, soft_wrap=True)
    console().print(
        f"survey {made.id}: hand out the page, keep the key; then camlucida survey tally KEY ANSWERS..."
    )


@survey.command(cls=Command)
def tally(
    key: Annotated[Path, typer.Argument(metavar="KEY", help="The survey.key.json.")],
    answers: Annotated[
        list[Path], typer.Argument(metavar="ANSWERS...", help="The files of those who answered.")
    ],
    permutations: Annotated[int, typer.Option(metavar="N", min=1, help="Of the test.")] = 9999,
    seed: Annotated[int, seed_option("the test")] = 0,
    as_json: AsJson = False,
) -> None:
    """Count the answers: wins per method, their spread over people, and whether it could be chance."""
    from camlucida.studies.survey import tally as count

    result = count(key, answers, permutations=permutations, seed=seed)
    if as_json:
        print_json(result.to_dict())
    else:
        console().print(result)
