"""Images worth looking at, explained again by every method of a run when its report is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from camlucida.benchmark.report.results import RunResults
from camlucida.common.errors import CamlucidaError
from camlucida.common.statistics import Floats
from camlucida.explanation.diagnostics import CASES
from camlucida.report.page import Strip, Tile, strips
from camlucida.report.tables import number
from camlucida.report.template import jpeg

if TYPE_CHECKING:
    from camlucida.data import DataSet, Sample
    from camlucida.explanation import Explanation
    from camlucida.models import LoadedModel
    from camlucida.targets import Target

KINDS = {
    "best": "Best",
    "median": "In the middle",
    "worst": "Worst",
    "disagreeing": "Most disagreement between methods",
}
SIDE = 176
"""Width of a picture in pixels."""

CONFIDENT = 0.5
"""Probability from which on a prediction is confident, as in ``camlucida cases``."""


@dataclass(frozen=True)
class Gallery:
    """Explained images.

    Attributes:
        strips: by the image's position among the run's images.
        notes: what could not be shown, in words.
    """

    strips: Mapping[int, Strip] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def html(self, wanted: Sequence[int]) -> str:
        """Strips, as a fragment of a page; empty where there are none."""
        shown = [self.strips[i] for i in wanted if i in self.strips]
        return strips(shown)


def chosen(values: Floats, direction: str, count: int = 3) -> dict[str, list[int]]:
    """Positions of the images to show, by the keys of :data:`KINDS`; no image comes twice.

    Best, middle and worst go by the mean over methods of the finding's number, disagreement by its standard
    deviation over methods.

    Args:
        values: the number by which they are chosen, ``(methods, N)``.
        direction: which way it is better.
        count: of each kind, at most; few images are shared out.
    """
    there = np.isfinite(values).all(0)
    if not there.any():
        there = np.isfinite(values).any(0)
    positions = np.flatnonzero(there)
    if not len(positions):
        return {}
    sign = -1.0 if direction == "higher" else 1.0
    mean, spread = np.nanmean(values[:, positions], axis=0), np.nanstd(values[:, positions], axis=0)
    order = positions[np.argsort(sign * mean, kind="stable")].tolist()
    apart = positions[np.argsort(-spread, kind="stable")].tolist() if len(values) > 1 else []
    apart = [p for p in apart if spread[np.searchsorted(positions, p)] > 0]
    middle = sorted(range(len(order)), key=lambda i: abs(i - (len(order) - 1) / 2))
    lists = {
        "best": order,
        "worst": order[::-1],
        "disagreeing": apart,
        "median": [order[i] for i in middle],
    }
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    taken: set[int] = set()
    for _ in range(count):
        for kind, candidates in lists.items():
            free = next((p for p in candidates if p not in taken), None)
            if free is not None:
                found[kind].append(free)
                taken.add(free)
    return {kind: ones for kind, ones in found.items() if ones}


def cases_of(results: RunResults, threshold: float = CONFIDENT) -> dict[str, list[int]]:
    """Positions of the images in each of :data:`camlucida.explanation.diagnostics.CASES`; empty without labels.

    The clearest come first: the most confident of the confident ones and the least confident of the unsure.
    """
    correct, probability = results.images["correct"], results.images["probability"]
    found: dict[str, list[int]] = {case: [] for case in CASES}
    for i in range(len(correct)):
        if correct[i] is None or not math.isfinite(probability[i]):
            continue
        sure = "confident" if probability[i] >= threshold else "unsure"
        found[f"{sure}-{'right' if correct[i] else 'wrong'}"].append(i)
    for case, ones in found.items():
        sign = -1 if case.startswith("confident") else 1
        ones.sort(key=lambda i: sign * probability[i])
    return found if any(found.values()) else {}


def explained(
    results: RunResults,
    positions: Sequence[int],
    values: Floats | None,
    *,
    model: LoadedModel | str | None = None,
    data: DataSet | str | None = None,
    progress: Callable[[float, float], object] | None = None,
) -> Gallery:
    """Explain images of a run again, as its plan says.

    Whatever cannot be reached or done is said in the gallery's notes and nothing is raised for it.

    Args:
        results: the run.
        positions: of the images.
        values: what stands below each map, ``(methods, N)``.
        model: the model, or what :func:`camlucida.load_model` takes; by default the plan's.
        data: the data set, or what opens it; by default files where the run found them, or the plan's.
        progress: called with the number of maps done and their total.
    """
    try:
        loaded, warning = _model(results, model)
        pictures, missing = _pictures(results, positions, data, loaded)
    except (CamlucidaError, OSError) as error:
        return Gallery(notes=(f"No pictures: {error}",))
    notes = [*warning, *missing]
    if not pictures:
        return Gallery(notes=tuple(notes) or ("No pictures: none of the images can be read.",))
    done = list(pictures)
    methods = list(results.plan.get("methods") or [])
    total = float(len(methods) * len(done))
    maps: dict[str, Explanation] = {}
    for m, method in enumerate(methods):
        label = str(method.get("label") or method["name"])

        def advance(part: float, _: float, start: int = m) -> None:
            if progress is not None:
                progress(start * len(done) + part, total)

        try:
            maps[label] = _explain(results, loaded, done, pictures, method, advance)
        except (CamlucidaError, MemoryError) as error:
            notes.append(f"{label} has no pictures: {error or 'out of memory'}")
    made = {
        position: _strip(results, position, i, maps, pictures[position], values)
        for i, position in enumerate(done)
    }
    return Gallery(made, tuple(notes))


# ----------------------------------------------------------------------------------------- what is needed


def model_of(
    plan: Mapping[str, Any], given: str | None = None, device: str | None = None, **how: Any
) -> LoadedModel:
    """The model of a run.

    Args:
        plan: of the run.
        given: what :func:`camlucida.load_model` takes; by default the plan's.
        device: where it goes.
        **how: further arguments of :func:`camlucida.load_model`; they go before those of the plan.

    Raises:
        CamlucidaError: the plan does not say how to load it, it cannot be loaded, or the plan names code: only a
            user's own word starts that.
    """
    from camlucida.models import load_model
    from camlucida.models.factory import names_code

    planned, said = plan.get("model") or {}, plan.get("how") or {}
    name = given or said.get("model") or planned.get("name")
    if not name:
        raise CamlucidaError("the plan does not say how to load the model; give it with --model")
    kept = {"architecture": planned.get("architecture")}
    if given is None:
        kept |= {key: said.get(key) for key in ("class_names", "outputs", "preprocess")}
    asked = {key: value for key, value in how.items() if value is not None}
    words = [None if given else name, None if "architecture" in asked else kept["architecture"]]
    if coded := [str(word) for word in words if word and names_code(str(word))]:
        raise CamlucidaError(
            f"the run's model is made by code of one's own ({coded[0]}), which a plan does not start; name it again "
            "with --model and --architecture"
        )
    return load_model(str(name), **{**kept, **asked}, device=device)


def _model(results: RunResults, given: LoadedModel | str | None) -> tuple[LoadedModel, list[str]]:
    from camlucida.common.provenance import fingerprint
    from camlucida.engine.borrow import unwrap

    loaded = model_of(results.plan, given) if given is None or isinstance(given, str) else given
    wanted = (results.plan.get("model") or {}).get("weights_sha256")
    if not wanted or fingerprint(unwrap(loaded.module)) == wanted:
        return loaded, []
    return loaded, [
        "The weights of the model are not those of the run, so the maps below may differ from the measured ones."
    ]


def _pictures(
    results: RunResults,
    positions: Sequence[int],
    data: DataSet | str | None,
    loaded: LoadedModel,
) -> tuple[dict[int, Image.Image], list[str]]:
    """The photos that can be read, and what is said about the others."""
    from camlucida.data import DataSet, read_image

    opened: DataSet | None = data if isinstance(data, DataSet) else None
    spec = data if isinstance(data, str) else (results.plan.get("how") or {}).get("data")
    found: dict[int, Image.Image] = {}
    problems: list[str] = []
    for position in positions:
        key, index = str(results.images["key"][position]), int(results.images["index"][position])
        source = results.images["source"][position]
        try:
            if data is None and source is not None and Path(str(source)).is_file():
                found[position] = read_image(Path(str(source)))
                continue
            if opened is None:
                opened = _open(spec, loaded)
            found[position] = _sample(opened, index, key).picture()
        except (CamlucidaError, OSError) as error:
            if opened is None:
                raise
            problems.append(f"{key} cannot be shown: {error}")
    return found, problems


def _open(spec: Any, loaded: LoadedModel) -> DataSet:
    from camlucida.data import open_data

    if not spec:
        raise CamlucidaError("the plan does not say where the data lie; give them with --data")
    return open_data(str(spec), class_names=loaded.class_names)


def _sample(data: DataSet, index: int, key: str) -> Sample:
    sample = data[index] if index < len(data) else None
    if sample is None or sample.key != key:
        raise CamlucidaError(f"the data set is not the run's: its image {index} is not {key}")
    return sample


def _target(results: RunResults, classes: list[Any]) -> Target:
    """The plan's target, for the classes that the run explained."""
    from camlucida.targets import TARGETS

    described = dict(results.plan.get("target") or {})
    name = described.pop("target", "Logit")
    kind = next((row.make for row in TARGETS if row.make.__name__ == name), None)
    if kind is None:
        raise CamlucidaError("its target is the run's own and cannot be made again from the plan")
    target = kind(**{k: v for k, v in described.items() if k != "classes"})
    if hasattr(target, "classes") and all(c is not None for c in classes):
        return replace(target, classes=[int(c) for c in classes])  # type: ignore[type-var]
    return target


def _explain(
    results: RunResults,
    loaded: LoadedModel,
    done: Sequence[int],
    pictures: Mapping[int, Image.Image],
    method: Mapping[str, Any],
    progress: Callable[[float, float], object],
) -> Explanation:
    from camlucida.explanation.explain import explain
    from camlucida.methods.registry import METHODS

    plan = results.plan
    if METHODS.runs_code(str(method["name"])):
        raise CamlucidaError("it is code of one's own, which only the command that names it starts")
    return explain(
        loaded,
        [pictures[p] for p in done],
        method=(str(method["name"]), dict(method.get("options") or {})),
        target=_target(results, [results.images["explained"][p] for p in done]),
        layers=plan.get("layers") or None,
        steps=plan.get("steps"),
        seed=int(plan.get("seed") or 0),
        batch_size=int((plan.get("how") or {}).get("batch_size") or 8),
        progress=progress,
    )


# ----------------------------------------------------------------------------------------------- drawing


def _strip(
    results: RunResults,
    position: int,
    i: int,
    maps: Mapping[str, Explanation],
    picture: Image.Image,
    values: Floats | None,
) -> Strip:
    images = results.images
    key = str(images["key"][position])
    name = key.rsplit("/", 1)[-1]
    first = next(iter(maps.values()), None)
    view = picture if first is None else first.views[i].cropped()
    tiles = [_tile("the photo", "", f"{name} as the model sees it", view)]
    for label, explanation in maps.items():
        value = math.nan
        if values is not None and label in results.methods:
            value = float(values[results.methods.index(label), position])
        text = number(value) if math.isfinite(value) else ""
        overlay = explanation.overlay(i, whole=False)
        tiles.append(_tile(label, text, f"{label} map of {name}", overlay))
    return Strip(_caption(results, position, name), tuple(tiles))


def _tile(title: str, text: str, alt: str, picture: Image.Image) -> Tile:
    small = max(picture.size) <= SIDE // 2
    height = max(1, round(SIDE * picture.height / picture.width))
    if not small and picture.width > SIDE:
        picture = picture.resize((SIDE, height), Image.Resampling.LANCZOS)
    return Tile(title, text, alt, jpeg(picture, 92 if small else 82), small)


def _caption(results: RunResults, position: int, name: str) -> str:
    images = results.images
    said, sure = images["predicted"][position], images["probability"][position]
    text = name
    if said is not None:
        text += f": said {results.class_name(int(said))}"
        text += f" ({100 * sure:.1f} %)" if math.isfinite(sure) else ""
    label, label_name = images["label"][position], images["label_name"][position]
    if label is not None:
        text += f", is {results.class_name(int(label)) if not label_name else str(label_name).split(',')[0]}"
    explained = images["explained"][position]
    if explained is not None and explained != said:
        text += f"; explained is {results.class_name(int(explained))}"
    return text
