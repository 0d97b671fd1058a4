"""What the last ``camlucida audit all`` said of each method, read from its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camlucida.audits.rules import GRADES, QUESTIONS
from camlucida.common.errors import CamlucidaError
from camlucida.common.files import read_text
from camlucida.common.provenance import fingerprint
from camlucida.methods import MethodRow
from camlucida.methods.registry import METHODS
from camlucida.models import LoadedModel
from camlucida.targets import LogitMargin


@dataclass(frozen=True)
class Grades:
    """An audit of the page's model.

    Attributes:
        methods: of each method's label its answers: by question the grade and the reasons.
        facts: what was audited, in words.
        warning: why the grades may not hold here; empty where nothing speaks against them.
    """

    methods: Mapping[str, Mapping[str, Mapping[str, Any]]]
    facts: str
    warning: str = ""

    def of(self, row: MethodRow) -> dict[str, Any] | None:
        """The grades of a method, and those of the same method on a margin; ``None`` where neither was audited."""
        on_margin = [r for r in METHODS if r.make is row.make and r.target is LogitMargin]
        own, margin = (
            next(
                (
                    {"label": label, "answers": answers}
                    for label, answers in self.methods.items()
                    if label.partition(" (")[0] in {one.name for one in rows}
                ),
                None,
            )
            for rows in ([row], on_margin)
        )
        return {"own": own, "margin": margin} if own or margin else None

    def to_dict(self) -> dict[str, Any]:
        """What the page shows beside the methods."""
        return {
            "facts": self.facts,
            "warning": self.warning,
            "questions": QUESTIONS,
            "order": GRADES,
        }


def read_grades(folder: str | os.PathLike[str], model: LoadedModel) -> Grades:
    """The grades in the folder of a trust report.

    Raises:
        CamlucidaError: there is no report, or not one that can be read.
    """
    path = Path(folder, "trust.json")
    if not path.is_file():
        raise CamlucidaError(
            f"{str(folder)!r} holds no trust.json; write one with: camlucida audit all --out {folder}"
        )
    try:
        found = json.loads(read_text(path, "trust report"))
        methods = {
            method["label"]: {
                question: {"grade": str(answer["grade"]), "reasons": [*map(str, answer["reasons"])]}
                for question, answer in method["answers"].items()
            }
            for method in found["methods"]
        }
        facts = f"{found['model']}, {found['images']} images ({found['data']})"
        weights = found.get("record", {}).get("weights_sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CamlucidaError(f"{str(path)!r} is no trust report that can be read") from error
    warning = ""
    if weights is not None and weights != fingerprint(model.module):
        warning = "These grades are of a model with other weights, and need not hold for this one."
    return Grades(methods, facts, warning)
