"""``camlucida methods``, ``metrics``, ``targets`` and ``audits``: what can be called by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from camlucida.cli.shared.console import console, print_json, print_lines, print_table, progress
from camlucida.cli.shared.listing import listing, word
from camlucida.cli.shared.model import NOBODY, Chosen, takes_model
from camlucida.cli.shared.options import AsJson, Device
from camlucida.common.errors import CamlucidaError
from camlucida.common.grammar import Option, choices

if TYPE_CHECKING:
    from camlucida.common.registry import Row
    from camlucida.methods import MethodRow
    from camlucida.metrics import MetricRow, Number

_DIRECTIONS = {
    "higher": "higher is better",
    "lower": "lower is better",
    "none": "describes, does not judge",
}


@takes_model
def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One method: its page, with all options.")
    ] = None,
    model: Annotated[
        Chosen,
        typer.Option(
            "--for",
            "--model",
            "-m",
            metavar="MODEL",
            help="Try the methods on this model, and say which fit, what they cost, and which to begin with. "
            "Weights are not needed where the architecture has a name: timm:NAME, torchvision:NAME, hf:NAME.",
        ),
    ] = NOBODY,
    explains: Annotated[
        Literal["layer", "layers", "input"] | None,
        typer.Option(
            help="Only methods whose map shows one layer, several layers, or the input itself."
        ),
    ] = None,
    gradients: Annotated[
        bool | None,
        typer.Option(
            "--gradients/--no-gradients",
            help="Only methods that need gradients, or that need none.",
        ),
    ] = None,
    by_class: Annotated[
        bool | None,
        typer.Option(
            "--by-class/--any-class",
            help="Only methods whose map depends on the class, or does not.",
        ),
    ] = None,
    few_passes: Annotated[
        bool | None,
        typer.Option(
            "--few-passes/--many-passes", help="Only methods that are quick, or that repeat passes."
        ),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """List the methods: when to take each, paper, formula, needs, cost and options.

    Options are set as in --method gradcam++:form=true,eps=1e-7

    [bold]camlucida methods fame[/]
    [bold]camlucida methods --for timm:resnet50 --few-passes[/]
    """
    from camlucida.methods import describe_method, list_methods, method_row

    rows, others = (
        list_methods(
            libraries=libraries,
            explains=explains,
            gradients=gradients,
            by_class=by_class,
            few_passes=few_passes,
        )
        for libraries in (False, True)
    )
    if name is not None:
        asked = method_row(name)
        own = () if asked.library or ":" not in asked.name else (asked,)
        rows = tuple(row for row in (*rows, *others, *own) if row.name == asked.name)
    if not rows:
        raise CamlucidaError("no method is like that; leave out one of the options")
    if model.name is not None:
        _fits(model, device, [row.name for row in rows], as_json=as_json)
    elif name is not None and as_json:
        print_json(describe_method(name).to_dict())
    elif name is not None:
        print_lines(repr(describe_method(name)))
    elif as_json:
        print_json([_method_record(row) for row in (*rows, *others)])
    else:
        console().print(listing((row.name, _method_facts(row)) for row in rows))
        console().print(
            '\n Of other libraries, computed by these: pip install "camlucida[peers]"\n'
        )
        console().print(listing((row.name, _method_facts(row)) for row in others))
        console().print(
            " camlucida methods NAME is a method's page, with what its options may be.\n"
            " Every method also takes aug_smooth=true (mean over flipped and dimmed copies),\n"
            " both_sides=true (what speaks for the target, and what against it) where it asks for one,\n"
            " and, where it weighs channels, eigen_smooth=true."
        )


def _fits(model: Chosen, device: str | None, names: Sequence[str], *, as_json: bool) -> None:
    """Which of these methods fit a model."""
    from camlucida.explanation import methods_for

    loaded = model.load(device, say=False, weights=False)
    with progress("trying the methods") as advance:
        found = methods_for(loaded, methods=names, progress=advance)
    if as_json:
        print_json(found.to_dict())
        return
    for table in found.tables:
        print_table(console(), table.rich())
        print_lines("")
    print_lines(f"★ {found.why}." if found.recommended else f"{found.why}.")


def metrics(as_json: AsJson = False) -> None:
    """List the metrics: what they measure, direction, range, source, needs, cost, options, and how they did on trial.

    On trial: whether they put truth above noise on images of which it is known what decides (camlucida audit metrics).
    """
    from camlucida.metrics import list_metrics

    rows = list_metrics()
    if as_json:
        print_json([_metric_record(row) for row in rows])
        return
    console().print(listing((row.name, _metric_facts(row)) for row in rows))


def targets(as_json: AsJson = False) -> None:
    """List the targets, which are the numbers that can be explained, and their options.

    Options are set as in --target margin:aggregator=max
    """
    from camlucida.targets import list_targets

    print_summaries(list_targets(), as_json=as_json)


def audits(as_json: AsJson = False) -> None:
    """List the audits that judge methods on your model, with the question that each answers.

    Each runs alone as camlucida audit NAME, and all of them with camlucida audit all.
    """
    from camlucida.audits import list_audits

    rows = list_audits()
    if as_json:
        print_json(
            [{"name": r.name, "title": r.title, "asks": r.asks, "images": r.images} for r in rows]
        )
        return
    console().print(listing((row.name, {"title": row.title, "asks": row.asks}) for row in rows))


# ---- what is said -------------------------------------------------------------------------------


def print_summaries(registry: Iterable[Row[Any]], *, as_json: bool) -> None:
    """Rows of which there is no more to say than what they are and which options they have."""
    rows = list(registry)
    records = [
        {
            "name": row.name,
            "summary": row.summary,
            "options": {name: option.default for name, option in row.settable.items()},
        }
        for row in rows
    ]
    if as_json:
        print_json(records)
        return
    facts = (
        (row.name, {"what": _plain(row.summary), "options": _written(row.settable)}) for row in rows
    )
    console().print(listing(facts))


def _method_facts(row: MethodRow) -> dict[str, str]:
    from camlucida.methods.registry import WRAPPING

    return {
        "use": row.use,
        "what": _plain(row.summary),
        "paper": row.source_in_words,
        "needs": row.needs_in_words,
        "class": "decides the map" if row.discriminative else "makes no difference",
        "cost": row.cost_in_words,
        "options": _written(row.settable, without=WRAPPING),
        "remark": row.remark,
    }


def _method_record(row: MethodRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "use": row.use,
        "summary": row.summary,
        "paper": row.paper,
        "year": row.year,
        "equation": row.equation,
        "needs": row.needs_in_words,
        "discriminative": row.discriminative,
        "cost": row.cost_in_words,
        "options": {**row.target_options, **row.options},
        "remark": row.remark,
        "library": row.library,
    }


def _metric_facts(row: MetricRow) -> dict[str, str]:
    from camlucida.metrics.registry import MetricCost, range_in_words

    def named(number: Number) -> str:
        other = number.direction != row.direction
        return number.name + (f" ({_DIRECTIONS[number.direction]})" if other else "")

    limits = range_in_words(row.range) + (f" {row.unit}" if row.unit else "")
    return {
        "what": _plain(row.summary),
        "range": f"{limits}; {_DIRECTIONS[row.direction]}",
        "numbers": ", ".join(map(named, _numbers(row))),
        "source": row.source,
        "needs": ", ".join(row.needs),
        "cost": "" if row.cost == MetricCost() else str(row.cost),
        "options": _written(row.settable),
        "remark": row.remark,
        "on trial": _tried(row),
    }


def _tried(row: MetricRow) -> str:
    """What ``camlucida audit metrics`` found about its numbers, in words."""
    from camlucida.audits.verdicts import OUTCOMES
    from camlucida.metrics import metric_verdicts

    known = {
        n.name: metric_verdicts()[n.name] for n in _numbers(row) if n.name in metric_verdicts()
    }
    if len(known) == 1:
        return next(f"{OUTCOMES[v['outcome']]}. {v['text']}" for v in known.values())
    by = {said: [n for n, v in known.items() if v["outcome"] == o] for o, said in OUTCOMES.items()}
    return "; ".join(f"{said}: {', '.join(names)}" for said, names in by.items() if names)


def _metric_record(row: MetricRow) -> dict[str, Any]:
    from camlucida.metrics import metric_verdicts

    facts = ("name", "title", "direction", "range", "unit")
    own = (*facts, "question", "source", "needs", "options", "remark")
    return {
        **{fact: getattr(row, fact) for fact in own},
        "summary": _plain(row.summary),
        "cost": str(row.cost),
        "costs": asdict(row.cost),
        "numbers": [
            {
                **{n: getattr(number, n) for n in facts},
                "on_trial": metric_verdicts().get(number.name),
            }
            for number in _numbers(row)
        ],
    }


def _numbers(row: MetricRow) -> list[Number]:
    """Facts of each number that the metric returns with its default options."""
    from camlucida.metrics import describe_number

    return [describe_number(name) for name in row.make().names]


def _plain(summary: str) -> str:
    """A first line of documentation without its markup."""
    return re.sub(r":\w+:|[`$\\]", "", summary)


def _written(options: Mapping[str, Option], without: Iterable[str] = ()) -> str:
    """Options and their defaults, as they are written on the command line, and the words that each may be."""
    found = []
    for name, option in options.items():
        if name not in without:
            others = [word(c) for c in choices(option.hint) if c != option.default]
            found.append(
                f"{name}={word(option.default)}" + f" (or {', '.join(others)})" * bool(others)
            )
    return ", ".join(found)
