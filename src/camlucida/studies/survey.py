"""A blind survey: which method's map do people find best, when they do not know whose map it is.

As the I-CAM authors did, with the order of the methods drawn for each image, all maps scaled to [0, 1] and
drawn alike, ties allowed, and a test that does not take answers about the same image for independent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import read_text
from camlucida.common.jsonable import to_json
from camlucida.common.statistics import Floats, permuted_p
from camlucida.engine.maps import normalise
from camlucida.explanation import Explanation, overlays
from camlucida.explanation.explain import MethodLike, explain
from camlucida.explanation.photos import Images
from camlucida.explanation.subject import ModelLike
from camlucida.report import Column, Document, Section, Table
from camlucida.report.template import data_uri, jpeg

__all__ = ["Survey", "Tally", "make_survey", "tally"]

QUESTION = "Which map shows best where the object is, and so why the model names it?"
TIE = "tie"
LETTERS = "ABCDEFGHIJ"

_SIDE = 300
_TASK = (
    "Below are {count} pictures. The first of each row is the picture as an image model saw it, with the class that it "
    "is explained for. The others are maps over it: light and yellow where the class is said to come from, dark where "
    "not. Choose the map that you find best, or “no clear best”. You can go back and change your mind. At the end, "
    "download your answers and send the file to whoever asked you; nothing is sent by itself."
)


@dataclass(frozen=True)
class Survey:
    """A survey to hand out.

    Attributes:
        html: the page: pictures inside, nothing fetched, no method named.
        key: which map is whose; keep it from those who answer.

    Example:
        >>> made = camlucida.studies.survey.make_survey(compared)
        >>> made.key["methods"]
        ['gradcam', 'layercam']
    """

    html: str = field(repr=False)
    key: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """What ties answers to this survey: a hash of the key."""
        return str(self.key["survey"])


def make_survey(
    explanations: Mapping[str, Explanation] | ModelLike,
    photos: Images | None = None,
    methods: Sequence[MethodLike] = (),
    *,
    question: str = QUESTION,
    seed: int = 0,
    **options: Any,
) -> Survey:
    """A survey about maps of the same images by several methods.

    Each method takes each place in the row equally often, as far as the number of images allows; which, the
    seed decides.

    Args:
        explanations: at least two, by label, such as the :class:`camlucida.Comparison` that
            :func:`camlucida.explain` returns for a list of methods. Or a model, which explains the photos.
        photos: what a model explains, as for :func:`camlucida.explain`.
        methods: by which methods; two or more.
        question: asked for every image.
        seed: the seed of the order, and of methods that draw random numbers.
        **options: further arguments of :func:`camlucida.explain`, such as ``preprocess``.

    Raises:
        CamlucidaError: for fewer than two or more than ten methods, or explanations of different images.

    Example:
        >>> made = camlucida.studies.survey.make_survey(compared)
        >>> written = open("survey.html", "w").write(made.html)
    """
    if not isinstance(explanations, Mapping):
        if photos is None:
            raise CamlucidaError("a survey of a model needs photos too, or give it explanations")
        explanations = explain(
            explanations, photos, method=list(methods), seed=seed, strict=True, **options
        )
    labels = list(explanations)
    if not 2 <= len(labels) <= len(LETTERS):
        raise CamlucidaError(
            f"a survey compares 2 to {len(LETTERS)} methods, got {len(labels)}: {', '.join(labels)}"
        )
    several = list(explanations.values())
    if len({len(e) for e in several}) > 1 or len({e.sources for e in several}) > 1:
        raise CamlucidaError("the methods of a survey must have explained the same images")
    orders = _orders(len(several[0]), len(labels), seed)
    questions, items = [], []
    for i, order in enumerate(orders):
        name = f"q{i + 1}"
        source = several[0].sources[i] if several[0].sources else None
        letters = {LETTERS[place]: labels[which] for place, which in enumerate(order)}
        questions.append({"question": name, "image": source, "letters": letters})
        items.append(_item(name, i, [several[which] for which in order]))
    key: dict[str, Any] = {
        "kind": "camlucida survey key",
        "methods": labels,
        "asked": question,
        "seed": seed,
        "questions": questions,
    }
    key = {"survey": _seal(key), **key}
    shown = " ".join([question, *(item["said"] for item in items)])
    for label, e in explanations.items():
        for name in (label, type(e.method).__name__):
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", shown, re.IGNORECASE):
                raise CamlucidaError(f"the question or a class gives the method {name!r} away")
    return Survey(_page(str(key["survey"]), question, items), key)


def _page(survey: str, question: str, items: Sequence[Mapping[str, Any]]) -> str:
    count = len(items)
    questions = "".join(_question(number, count, item) for number, item in enumerate(items, 1))
    form = (
        f'<form id="survey" autocomplete="off" data-survey="{survey}" data-count="{count}">{questions}</form>'
        '<div class="bar"><button type="button" id="download">Download answers</button>'
        '<button type="button" id="fresh" class="quiet">Start afresh</button>'
        f'<span id="state" role="status" aria-live="polite">0 of {count} answered</span></div>'
        "<noscript><p>This page needs JavaScript to collect your answers.</p></noscript>"
    )
    own = files("camlucida.studies")
    return Document(
        question,
        [_TASK.format(count=count)],
        [Section("pictures", "The pictures", [form])],
        sortable=False,
        style=(own / "survey.css").read_text("utf-8"),
        script=(own / "survey.js").read_text("utf-8"),
    ).html()


def _question(number: int, count: int, item: Mapping[str, Any]) -> str:
    said = f": {escape(item['said'])}" if item["said"] else ""
    choice = f'<input type="radio" name="{item["name"]}" value="{{}}">'
    maps = "".join(
        f'<label><img src="{m["picture"]}" alt="Map {m["letter"]} of picture {number}">'
        f"{choice.format(m['letter'])} map {m['letter']}</label>"
        for m in item["maps"]
    )
    return (
        f"<fieldset><legend>Picture {number} of {count}{said}</legend>"
        f'<div class="maps"><figure><img src="{item["photo"]}" alt="Picture {number}{said}">'
        f"<figcaption>the picture</figcaption></figure>{maps}</div>"
        f'<label class="tie">{choice.format(TIE)} no clear best</label></fieldset>'
    )


def _orders(images: int, methods: int, seed: int) -> list[list[int]]:
    """Blocks of a random order and all its rotations, in random sequence."""
    generator = np.random.default_rng(seed)
    orders: list[list[int]] = []
    while len(orders) < images:
        base = generator.permutation(methods)
        shifts = generator.permutation(methods)
        orders += [np.roll(base, int(shift)).tolist() for shift in shifts]
    return orders[:images]


def _item(name: str, i: int, explanations: Sequence[Explanation]) -> dict[str, Any]:
    """An image and its maps, drawn alike."""
    first = explanations[0]
    seen = first.seen(i, _SIDE)
    maps = []
    for letter, e in zip(LETTERS, explanations, strict=False):
        one = normalise(e.maps[i : i + 1].float())[0]
        maps.append({
            "letter": letter,
            "picture": data_uri(jpeg(overlays.overlay(seen, one)), "image/jpeg"),
        })  # fmt: skip
    said = first.explained[i].rpartition(", ")[0]
    return {
        "name": name,
        "photo": data_uri(jpeg(seen.picture), "image/jpeg"),
        "said": said,
        "maps": maps,
    }


def _seal(key: Mapping[str, Any]) -> str:
    """A hash of all of a key but itself."""
    content = {k: v for k, v in key.items() if k != "survey"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------- tally


@dataclass(frozen=True)
class MethodTally:
    """What the raters gave a method.

    Attributes:
        method: its label.
        wins: mean number of wins per rater; a tie counts as an equal part of a win for every method.
        spread: standard deviation of the wins over raters; ``None`` for a single rater.
        share: of all answers.
        clear: number of answers for it alone.
    """

    method: str
    wins: float
    spread: float | None
    share: float
    clear: int


@dataclass(frozen=True)
class Tally:
    """The result of a survey.

    Attributes:
        survey: its id.
        asked: the question.
        questions: number of images.
        raters: number of people.
        answers: number of answers, ties included.
        ties: number of ties.
        methods: in the key's order.
        p: of equal preference, by a permutation test that relabels the methods image by image: raters who see
            the same picture are not independent.
        p_independent: the same if all answers were independent: exact binomial for two methods, else
            chi-square; ties left out. ``None`` if all answers are ties.

    Example:
        >>> made = camlucida.studies.survey.make_survey(compared)
        >>> sheet = {"survey": made.id, "rater": "ann", "answers": {"q1": "A", "q2": "tie"}}
        >>> camlucida.studies.survey.tally(made.key, [sheet], permutations=9).ties
        1
    """

    survey: str
    asked: str
    questions: int
    raters: int
    answers: int
    ties: int
    methods: tuple[MethodTally, ...]
    p: float
    p_independent: float | None

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**vars(self), "methods": [vars(m) for m in self.methods]}

    def __rich__(self) -> Any:
        """A table for the terminal."""
        independent = "–" if self.p_independent is None else f"{self.p_independent:.3g}"
        return Table.of(
            "tally",
            self.asked,
            [vars(m) for m in sorted(self.methods, key=lambda m: -m.wins)],
            {
                "method": Column("method"),
                "wins": Column("wins per rater", places=2),
                "spread": Column("spread", places=2),
                "share": Column("share", places=3),
                "clear": Column("clear wins"),
            },
            legend=f"{self.raters} raters, {self.questions} images, {self.answers} answers, {self.ties} ties. Equal "
            f"preference: p = {self.p:.3g} (relabelled image by image), {independent} (answers independent).",
        ).rich()


def tally(
    key: str | os.PathLike[str] | Mapping[str, Any],
    answers: Sequence[str | os.PathLike[str] | Mapping[str, Any]],
    *,
    permutations: int = 9999,
    seed: int = 0,
) -> Tally:
    """Count the answers to a survey.

    Args:
        key: the key file, or what it holds.
        answers: one file per rater, or what they hold.
        permutations: the permutations of the test.
        seed: the seed of the test.

    Raises:
        CamlucidaError: a file cannot be read, the key was changed, answers belong to another survey, a rater
            comes twice, or nobody answered anything.

    Example:
        >>> made = camlucida.studies.survey.make_survey(compared)
        >>> sheet = {"survey": made.id, "rater": "ann", "answers": {"q1": "A", "q2": "tie"}}
        >>> found = camlucida.studies.survey.tally(made.key, [sheet], permutations=9)
        >>> found.raters, found.answers
        (1, 2)
    """
    if permutations < 1:
        raise CamlucidaError(f"permutations must be >= 1, got {permutations}")
    sheet = _key(key)
    methods: list[str] = sheet["methods"]
    letters = {q["question"]: q["letters"] for q in sheet["questions"]}
    place = {name: i for i, name in enumerate(letters)}
    raters: dict[str, str] = {}
    counts = np.zeros((len(answers), len(letters), len(methods)))
    ties = clear = 0
    of_method = [0] * len(methods)
    for row, given in enumerate(answers):
        rater, chosen, where = _answers(given, sheet["survey"], row)
        if rater in raters:
            raise CamlucidaError(f"{where} is by the same rater as {raters[rater]}; leave one out")
        raters[rater] = where
        for question, letter in chosen.items():
            known = letters.get(question)
            if known is None or (letter != TIE and letter not in known):
                raise CamlucidaError(
                    f"{where} answers {question!r} by {letter!r}, which was not asked"
                )
            if letter == TIE:
                counts[row, place[question]] = 1 / len(methods)
                ties += 1
            else:
                which = methods.index(known[letter])
                counts[row, place[question], which] = 1
                of_method[which] += 1
                clear += 1
    if not clear + ties:
        raise CamlucidaError("there are no answers to count")
    wins = counts.sum(1)
    spread = wins.std(0, ddof=1) if len(wins) > 1 else None
    return Tally(
        survey=sheet["survey"],
        asked=str(sheet["asked"]),
        questions=len(letters),
        raters=len(raters),
        answers=clear + ties,
        ties=ties,
        methods=tuple(
            MethodTally(
                name,
                float(wins[:, i].mean()),
                None if spread is None else float(spread[i]),
                float(wins[:, i].sum() / (clear + ties)),
                of_method[i],
            )
            for i, name in enumerate(methods)
        ),
        p=_permuted(counts.sum(0), permutations, seed),
        p_independent=_independent(of_method),
    )


def _permuted(by_image: Floats, permutations: int, seed: int) -> float:
    """P of the scatter of the totals when the methods are relabelled at random in every image."""
    return float(
        permuted_p(
            np.var(by_image.sum(0)),
            lambda generator: np.var(generator.permuted(by_image, axis=1).sum(0)),
            permutations,
            seed,
        )
    )


def _independent(wins: Sequence[int]) -> float | None:
    """Two-sided exact binomial test of two counts, chi-square test of more."""
    from scipy.stats import binomtest, chisquare

    if not sum(wins):
        return None
    test = binomtest(wins[0], sum(wins)) if len(wins) == 2 else chisquare(wins)
    return float(test.pvalue)


def _key(key: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    where = "the key" if isinstance(key, Mapping) else repr(os.fspath(key))
    sheet = dict(key) if isinstance(key, Mapping) else _load(key)
    if sheet.get("kind") != "camlucida survey key":
        raise CamlucidaError(f"{where} is not the key of a survey")
    if sheet.get("survey") != _seal(sheet):
        raise CamlucidaError(f"{where} was changed after the survey was made")
    return sheet


def _answers(
    given: str | os.PathLike[str] | Mapping[str, Any], survey: str, row: int
) -> tuple[str, dict[str, str], str]:
    where = f"answer sheet {row + 1}" if isinstance(given, Mapping) else repr(os.fspath(given))
    sheet = dict(given) if isinstance(given, Mapping) else _load(given)
    if sheet.get("survey") != survey:
        raise CamlucidaError(
            f"{where} belongs to the survey {sheet.get('survey')!r}, not to {survey!r}"
        )
    chosen, rater = sheet.get("answers"), sheet.get("rater")
    if not isinstance(chosen, dict) or not all(isinstance(v, str) for v in chosen.values()):
        raise CamlucidaError(f"{where} holds no answers")
    if not isinstance(rater, str) or not rater:
        raise CamlucidaError(f"{where} does not say whose answers it holds")
    return rater, chosen, where


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    where = repr(os.fspath(path))
    text = read_text(Path(path), "file")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CamlucidaError(f"{where} is not JSON in UTF-8") from error
    if not isinstance(document, dict):
        raise CamlucidaError(f"{where} holds no JSON object")
    return document


def key_file(html: Path) -> Path:
    """Where the key of a page goes: ``survey.html`` to ``survey.key.json``."""
    return html.with_suffix(".key.json")


def save_key(survey: Survey, path: Path) -> None:
    """Write the key, readable by its owner only."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(to_json(survey.key), encoding="utf-8")
