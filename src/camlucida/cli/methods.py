"""``camlucida methods``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from camlucida.cli.shared.console import console, print_json
from camlucida.cli.shared.listing import listing, word
from camlucida.cli.shared.options import AsJson

if TYPE_CHECKING:
    from camlucida.methods import MethodRow


def methods(
    as_json: AsJson = False,
) -> None:
    """List the methods: paper, formula, needs, cost and options.

    Options are set as in --method gradcam++:form=true,eps=1e-7
    """
    from camlucida.methods import list_methods

    rows = list_methods()
    if as_json:
        print_json([_record(row) for row in rows])
        return
    terminal = console()
    terminal.print(listing((row.name, _facts(row)) for row in rows))
    terminal.print(
        " Every method also takes aug_smooth=true (mean over flipped and dimmed copies)\n"
        " and, where it weighs channels, eigen_smooth=true."
    )


def _facts(row: MethodRow) -> dict[str, str]:
    """What there is to say about a method."""
    number = row.equation[:1].isdigit()
    several = re.match(r"\d+\s*[,-]\s*\d", row.equation)
    equation = f"equation{'s' if several else ''} {row.equation}"
    return {
        "paper": f"{row.paper}, {equation if number else row.equation}",
        "needs": row.needs_in_words,
        "class": "decides the map" if row.discriminative else "makes no difference",
        "cost": row.cost_in_words,
        "options": ", ".join(f"{k}={word(v)}" for k, v in _options(row).items()),
        "remark": row.remark,
    }


def _options(row: MethodRow) -> dict[str, Any]:
    return {**row.target_options, **row.options}


def _record(row: MethodRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "summary": row.summary,
        "paper": row.paper,
        "year": row.year,
        "equation": row.equation,
        "needs": row.needs_in_words,
        "discriminative": row.discriminative,
        "cost": row.cost_in_words,
        "options": _options(row),
        "remark": row.remark,
    }
