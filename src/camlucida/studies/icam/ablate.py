"""What each part of I-CAM does to the map: one call, one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from camlucida.common.errors import MethodError
from camlucida.common.statistics import correlation
from camlucida.engine.layers import Layers
from camlucida.explanation.explain import explain
from camlucida.explanation.photos import Images
from camlucida.methods import Progress
from camlucida.methods.icam import ICAM
from camlucida.models import LoadedModel
from camlucida.report import Column, Table
from camlucida.targets import TargetLike

PARTS = ("bias", "alpha", "filter", "weights", "copies", "noise")


@dataclass(frozen=True)
class AblationRow:
    """One setting of I-CAM against the reference.

    Attributes:
        part: which part of the method is changed.
        setting: the changed options.
        correlation: mean over the images of the correlation between the setting's maps and the reference's;
            NaN where no image gives one (an empty map), 1 where the two are equal by proof.
        mse: mean squared difference of the maps, which are scaled to [0, 1]; 0 where equal by proof.
        passes: forward and full backward passes per image.
        proof: why the row needs no measuring; empty where it was measured.
        empty: number of images whose map is empty.
    """

    part: str
    setting: str
    correlation: float
    mse: float
    passes: int
    proof: str = ""
    empty: int = 0


@dataclass(frozen=True)
class Ablation:
    """The table of an ablation.

    Attributes:
        rows: the reference first.
        images: number of images.
        noise_floor: mean correlation and mean squared difference of the reference with itself at another
            seed: differences of this size mean nothing.

    Example:
        >>> fast = camlucida.methods.ICAM(n_perturb=1)
        >>> found = camlucida.studies.icam.ablation(model, images, method=fast, parts=["bias"])
        >>> sorted(found.to_dict())
        ['another_seed', 'images', 'rows']
    """

    rows: tuple[AblationRow, ...]
    images: int
    noise_floor: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "images": self.images,
            "another_seed": {"correlation": self.noise_floor[0], "mse": self.noise_floor[1]},
            "rows": [asdict(row) for row in self.rows],
        }

    @property
    def table(self) -> Table:
        """A row per setting, the reference first."""
        correlation, mse = self.noise_floor
        rows = [
            {**vars(row), "remark": row.proof or (f"{row.empty} empty maps" if row.empty else "")}
            for row in self.rows
        ]
        return Table.of(
            "ablation",
            f"I-CAM, part by part ({self.images} images)",
            rows,
            {
                "part": Column("part"),
                "setting": Column("setting"),
                "correlation": Column("correlation", places=4),
                "mse": Column("MSE", digits=2),
                "passes": Column("passes"),
                "remark": Column("remark"),
            },
            legend=f"The reference at another seed: correlation {correlation:.4f}, MSE {mse:.2g}.",
        )

    def __rich__(self) -> Any:
        """The table for the terminal."""
        return self.table.rich()


def ablation(
    model: nn.Module | LoadedModel,
    images: Images,
    target: TargetLike = None,
    *,
    method: ICAM | None = None,
    layers: Layers | None = None,
    parts: Sequence[str] = PARTS,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Ablation:
    """Change one part of I-CAM at a time and compare the maps with the unchanged ones.

    All settings use the same perturbed copies, as far as they have them in common: what differs is the
    setting, not the draw.

    Args:
        model: the model, as for :func:`camlucida.explain`.
        images: the images, as for :func:`camlucida.explain`.
        target: what is explained.
        method: the reference, I-CAM with its defaults if left out.
        layers: the layers; all blocks by default.
        parts: which parts to change, of ``bias``, ``alpha``, ``filter``, ``weights``, ``copies``, ``noise``.
        seed: the seed of the copies.
        progress: is called with the settings done and their number.
        **options: further options of :func:`camlucida.explain`, such as ``preprocess``.

    Raises:
        MethodError: for an unknown part.

    Example:
        >>> fast = camlucida.methods.ICAM(n_perturb=1)
        >>> found = camlucida.studies.icam.ablation(model, images, method=fast, parts=["alpha"])
        >>> found.rows[1].setting
        'alpha_form=none'
    """
    reference = method or ICAM()
    if unknown := [part for part in parts if part not in PARTS]:
        raise MethodError(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    planned = [(p, change) for p in PARTS if p in parts for change in _changes(p, reference)]
    settings = [(part, change, _proof(change, reference)) for part, change in planned]
    total = 2 + sum(not proof for _, _, proof in settings)
    done = 0

    def maps(one: ICAM, at: int = seed) -> Tensor:
        nonlocal done
        found = explain(model, images, method=one, target=target, layers=layers, seed=at, **options)
        done += 1
        if progress is not None:
            progress(done, total)
        return found.maps.detach().double().cpu()

    base = maps(reference)
    floor = compare(maps(reference, seed + 1), base)[:2]
    rows = [AblationRow("reference", "", 1.0, 0.0, reference.passes, "the reference itself")]
    for part, change, proof in settings:
        changed = replace(reference, **change)
        words = ", ".join(
            f"{name}={value}" for name, value in change.items() if value != getattr(reference, name)
        )
        if proof:
            rows.append(AblationRow(part, words, 1.0, 0.0, changed.passes, proof))
        else:
            near, apart, empty = compare(maps(changed), base)
            rows.append(AblationRow(part, words, near, apart, changed.passes, "", empty))
    return Ablation(tuple(rows), len(base), floor)


def compare(maps: Tensor, reference: Tensor) -> tuple[float, float, int]:
    """Correlation and mean squared difference of two sets of maps, averaged over the images.

    Args:
        maps: ``(N, H, W)``.
        reference: ``(N, H, W)``.

    Returns:
        The mean correlation over the images where both maps vary (NaN without any), the mean squared
        difference over all, and the number of images whose map in ``maps`` does not vary.
    """
    x, y = maps.flatten(1), reference.flatten(1)
    mse = float((x - y).square().mean())
    constant = int((x.amax(1) == x.amin(1)).sum())
    return float(correlation(x, y).nanmean()), mse, constant


def _changes(part: str, reference: ICAM) -> list[dict[str, Any]]:
    """The settings of a part, without the reference's own."""
    every: dict[str, list[dict[str, Any]]] = {
        "bias": [{"bias": b} for b in ("none", "channel", "spatial")],
        "alpha": [
            {"alpha_form": "none"},
            *(
                {"alpha_form": "literal", "function": f}
                for f in ("softmax", "sigmoid", "exp", "identity")
            ),
        ],
        "filter": [{"coverage": c} for c in (0.5, 0.8, 0.95, 1.0)],
        "weights": [
            {"layer_weighting": "uniform"},
            {"layer_weighting": "uniform", "coverage": 1.0},
            {"normalise_terms": not reference.normalise_terms},
            *({"layer_normalise": how} for how in ("none", "minmax", "max")),
        ],
        "copies": [{"n_perturb": n} for n in (2, 4, 8, 16)],
        "noise": [{"alpha": a} for a in (0.1, 0.2, 0.4, 0.6)],
    }
    return [
        change
        for change in every[part]
        if any(getattr(reference, name) != value for name, value in change.items())
    ]


def _proof(change: dict[str, Any], reference: ICAM) -> str:
    """Why a setting's map is equal to the reference's; empty where it must be measured."""
    changed = replace(reference, **change)
    shift_free = not reference.relu and reference.layer_normalise != "max"
    if (
        set(change) == {"bias"}
        and shift_free
        and {changed.bias, reference.bias} == {"none", "channel"}
    ):
        return "equal by proof: the channel bias is a constant, and minmax removes it"
    return ""
