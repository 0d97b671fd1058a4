"""The result a user holds: maps, values, predictions, diagnostics and provenance; it can draw itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlucida.common.printable import distinct, few, name_of
from camlucida.common.provenance import Provenance
from camlucida.engine.reading import Outputs
from camlucida.explanation import overlays
from camlucida.explanation.diagnostics import Diagnostics, Prediction
from camlucida.explanation.drawable import Drawable
from camlucida.methods import Method
from camlucida.targets import ClassTarget, Contrast, Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 3  # images and messages in a text
_METHODS = 6  # methods in a text


@dataclass(frozen=True, repr=False, eq=False)
class Explanation(Drawable):
    """Attribution maps of one method for a batch of images.

    Attributes:
        maps: attribution maps ``(N, H, W)`` in [0, 1] at the input's resolution.
        raw: the method's own map ``(N, h, w)``, rectified where the formula rectifies.
        signed: the same before rectifying.
        layer_maps: the signed map of each layer, ``(N, h, w)``.
        target_values: the explained scalar of each image, ``(N,)``.
        target: what was explained, with the class of each image.
        logits: the model's class logits ``(N, M)``; ``None`` for a target without classes.
        predictions: of each image the most probable classes, of labels all that reach the threshold; none where
            what is explained has no class logits.
        layers: names of the explained layers.
        method: the method with its options.
        label: a short name for the method and target.
        diagnostics: one per image.
        details: what else the method tells, one entry per image along the first dimension.
        provenance: how to get this result again.
        views: the picture of each image, and the part that the model saw.
        sources: the file name of each image, where there was one.
        outputs: what the model's outputs are, found or said.
        style: how it is drawn.

    Example:
        >>> explanation = camlucida.explain(model, images, method="hirescam")
        >>> explanation[0].overlay().size, explanation.layers
        ((32, 32), ('4',))
        >>> explanation.save("out/maps.npz").name
        'maps.npz'
    """

    maps: Tensor
    raw: Tensor
    signed: Tensor
    layer_maps: dict[str, Tensor]
    target_values: Tensor
    target: Target
    logits: Tensor | None = field(repr=False)
    predictions: tuple[tuple[Prediction, ...], ...]
    layers: tuple[str, ...]
    method: Method
    label: str
    diagnostics: tuple[Diagnostics, ...]
    details: dict[str, Tensor]
    provenance: Provenance = field(repr=False)
    views: overlays.LazyViews = field(repr=False)
    sources: tuple[str | None, ...] = ()
    outputs: Outputs = field(default_factory=Outputs)
    style: overlays.Style = overlays.PLAIN

    def __repr__(self) -> str:
        """A few lines: what was explained by what, and the messages of the first image."""
        number, *size = self.maps.shape
        shown = [f"  {words}" for words in self.explained[:_SHOWN]]
        more = [f"  and {number - _SHOWN} more"] if number > _SHOWN else []
        said = [f"  note: {text}" for text in self.diagnostics[0].messages[:_SHOWN]]
        head = (
            f"Explanation of {_images(number)} by {self.label} at {few(self.layers)}, "
            f"maps {size[0]} x {size[1]}"
        )
        return "\n".join([head, *shown, *more, *said])

    def __len__(self) -> int:
        return self.maps.shape[0]

    def __getitem__(self, index: int) -> Explanation:
        """The explanation of one image; it keeps neither the other images nor the model in memory."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        i = index % len(self)
        return self.with_images(
            lambda name: getattr(self, name)[[i]],
            lambda name, key: getattr(self, name)[key][[i]],
            lambda name: getattr(self, name)[i : i + 1],
            target=self.target.take(torch.tensor([i], device="cpu")),
            views=self.views[i : i + 1],
            sources=self.sources[i : i + 1],
            provenance=self.provenance.alone(),
        )

    def with_images(
        self,
        tensor: Callable[[str], Tensor],
        entry: Callable[[str, str], Tensor],
        rows: Callable[[str], tuple[Any, ...]],
        **changes: Any,
    ) -> Explanation:
        """The same for other images.

        Args:
            tensor: from the name of an attribute with one entry per image to that of the other images.
            entry: the same of the tensor under a key of ``layer_maps`` and ``details``.
            rows: the same of ``predictions`` and ``diagnostics``.
            **changes: the attributes that remain.
        """
        changes |= {name: tensor(name) for name in ("maps", "raw", "signed", "target_values")}
        changes["logits"] = None if self.logits is None else tensor("logits")
        for name in ("layer_maps", "details"):
            changes[name] = {key: entry(name, key) for key in getattr(self, name)}
        changes |= {name: rows(name) for name in ("predictions", "diagnostics")}
        return replace(self, **changes)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[i] for i in range(len(self)))

    def _classes(self) -> list[tuple[int, ...]] | None:
        """Of each image the class that is explained, and the rivals that were named; ``None`` without classes."""
        target = self.target
        if not isinstance(target, ClassTarget) or not isinstance(target.classes, Tensor):
            return None
        own = target.classes[:, None]
        if isinstance(target, Contrast) and target.rivals is not None and self.logits is not None:
            own = torch.cat([own, target.against(self.logits, target.classes)], dim=1)
        return [tuple(row) for row in own.tolist()]

    def _called(self, index: int) -> str | None:
        """The name of a class."""
        named = getattr(self.views, "class_names", None) or ()
        if self.logits is not None and len(named) != self.logits.shape[1]:
            named = ()  # of another model
        name: str | None = named[index] if index < len(named) else self.target.unnamed(index)  # type: ignore[attr-defined]
        return name.partition(",")[0] if name else None

    @property
    def explained(self) -> tuple[str, ...]:
        """What was explained for each image, in words."""
        values, chosen = self.target_values.tolist(), self._classes()
        if chosen is None:
            return tuple(self.target.shown(value, None) for value in values)
        words = []
        for i, ((own, *rivals), value) in enumerate(zip(chosen, values, strict=True)):
            name = self._called(own)
            if rivals and self.logits is not None:
                mine, *theirs = (
                    f"{self._called(c)} {self.logits[i, c]:.3g}" for c in (own, *rivals)
                )
                name = f"{mine} against {few(theirs)}"
            words.append(self.target.shown(value, name))
        return tuple(words)

    @property
    def sides(self) -> tuple[str, str]:
        """What values below 0 speak for, and what those above 0; of several images what holds for all of them."""
        chosen = set(self._classes() or ())
        if len(chosen) != 1:
            return "against", "for"
        own, *rivals = chosen.pop()
        name = self._called(own) or "it"
        return (
            f"for {few(str(self._called(c)) for c in rivals)}" if rivals else f"against {name}"
        ), f"for {name}"

    # ------------------------------------------------------------------------------------- drawing

    def seen(self, index: int = 0, longest: int = 224) -> overlays.View:
        """What the model saw of one image, in the shape in which it saw it; black where it saw padding.

        Args:
            index: which image.
            longest: the longer side, in pixels.

        Returns:
            A picture, all of which the model saw.
        """
        rows, columns = self.maps.shape[1:]
        scale = longest / max(rows, columns)
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        picture = self.views[index].cropped().resize(size, Image.Resampling.LANCZOS)
        return overlays.View.whole(picture)

    def style_of(self, index: int) -> overlays.Style:
        """How one image's map is drawn: brightest where it is largest, unless the style says which value is."""
        if self.style.largest is not None:
            return self.style
        return replace(self.style, largest=float(self.maps[index].abs().max()))

    def overlay(
        self,
        index: int = 0,
        *,
        alpha: float | None = None,
        colours: str | None = None,
        whole: bool = True,
    ) -> Image.Image:
        """The map of one image over its picture.

        Args:
            index: which image.
            alpha: opacity of the map, 0 to 1; by default the style's.
            colours: a matplotlib colour map; by default the style's.
            whole: draw on the whole photo, with the map on the part that the model saw (default), or only
                on that part.

        Returns:
            An RGB picture, at most 1024 pixels to a side.
        """
        style = self.style_of(index)
        style = replace(
            style,
            alpha=style.alpha if alpha is None else alpha,
            colours=colours or style.colours,
        )
        view = self.views[index]
        if not whole:
            view = overlays.View.whole(view.scaled().cropped())
        return overlays.overlay(view, self.maps[index], style)

    def figure(self) -> Figure:
        """Each image beside its map, on a matplotlib figure."""
        return Comparison((self,)).figure()

    # -------------------------------------------------------------------------------------- saving

    def record(self) -> dict[str, Any]:
        """Everything but the maps, ready for JSON."""
        images = []
        for i in range(len(self)):
            target = self.target.take(torch.tensor([i], device="cpu"))
            images.append({
                "source": self.sources[i] if self.sources else None,
                "explained": self.explained[i],
                "target": target.describe(),
                "target_value": float(self.target_values[i]),
                "predictions": [asdict(p) for p in self.predictions[i]],
                "diagnostics": asdict(self.diagnostics[i]),
                "messages": list(self.diagnostics[i].messages),
            })  # fmt: skip
        return {
            "label": self.label,
            "layers": list(self.layers),
            "images": images,
            "provenance": self.provenance.to_dict(),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per image."""
        found = []
        for i, words in enumerate(self.explained):
            top = next(iter(self.predictions[i]), None)
            found.append({
                "source": self.sources[i] if self.sources else None,
                "method": self.label,
                "explained": words,
                "target_value": float(self.target_values[i]),
                "predicted": top and top.name,
                "probability": top and top.probability,
                "messages": "; ".join(self.diagnostics[i].messages),
            })  # fmt: skip
        return found

    def numpy(self) -> np.ndarray[Any, Any]:
        """The attribution maps, ``(N, H, W)``."""
        return _array(self.maps)

    def save_into(self, folder: Path) -> None:
        """Everything, into a folder that is there."""
        sources = self.sources or [None] * len(self)
        stems = [Path(source or f"image{i}").stem for i, source in enumerate(sources)]
        for i, name in enumerate(distinct(["figure", *stems])[1:]):
            self.overlay(i).save(folder / f"{name}.png")
        for file in ("maps.npz", "record.json", "figure.png"):
            self.save(folder / file)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All maps and values as arrays: maps, raw, signed, target_values, layer:NAME, details:NAME."""
        arrays = {
            "maps": self.maps,
            "raw": self.raw,
            "signed": self.signed,
            "target_values": self.target_values,
        }
        arrays |= {f"layer:{name}": m for name, m in self.layer_maps.items()}
        arrays |= {f"details:{name}": d for name, d in self.details.items()}
        return {name: _array(tensor) for name, tensor in arrays.items()}


class Comparison(Drawable, Mapping[str, Explanation]):
    """Explanations of the same images by several methods, by label.

    Args:
        explanations: at least one, all of the same images.
        skipped: methods that cannot run on this model, each with the reason.

    Attributes:
        skipped: the same, by label.

    Example:
        >>> both = camlucida.explain(model, images, method=["gradcam", "eigencam"])
        >>> {label: one.maps.shape for label, one in both.items()}
        {'gradcam': torch.Size([2, 32, 32]), 'eigencam': torch.Size([2, 32, 32])}
    """

    def __init__(
        self, explanations: Sequence[Explanation], skipped: Sequence[tuple[str, str]] = ()
    ) -> None:
        labels = distinct([explanation.label for explanation in explanations], "{} ({})")
        self._by_label = dict(zip(labels, explanations, strict=True))
        self.skipped = dict(skipped)

    def __repr__(self) -> str:
        """A few lines: the methods, and what each explained of the first image."""
        first = next(iter(self.values()))
        shown = [f"  {label}: {one.explained[0]}" for label, one in [*self.items()][:_METHODS]]
        more = [f"  and {len(self) - _METHODS} more"] if len(self) > _METHODS else []
        of = "" if len(first) == 1 else "; of the first"
        head = f"Comparison of {len(self)} methods on {_images(len(first))}{of}"
        left = [f"  left out: {label}: {reason}" for label, reason in self.skipped.items()]
        return "\n".join([head, *shown, *more, *left])

    def __getitem__(self, label: str) -> Explanation:
        """The explanation of a method; ``KeyError`` says why a method was left out."""
        if label in self.skipped and label not in self._by_label:
            raise KeyError(f"{label} was left out: {self.skipped[label]}")
        return self._by_label[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_label)

    def __len__(self) -> int:
        return len(self._by_label)

    def figure(self) -> Figure:
        """A grid: one row per image, the photo first, then the map of each method; beside it what was explained."""
        first = next(iter(self.values()))
        signed = any(bool((e.maps < 0).any()) for e in self.values())
        pictures, rows = [], []
        for i in range(len(first)):
            drawn = [
                overlays.overlay(e.views[i], e.maps[i], e.style_of(i), signed=signed)
                for e in self.values()
            ]
            pictures.append([first.views[i].scaled().picture, *drawn])
            source = first.sources[i] if first.sources else None
            top = next(iter(first.predictions[i]), None)
            parts = [name_of(source)] if source else []
            if top is not None:
                parts.append(f"predicted: {top.name.partition(',')[0]} {top.probability:.0%}")
            explained = dict.fromkeys(words[i] for words in (e.explained for e in self.values()))
            parts += [f"explained: {text}" for text in explained]
            rows.append("\n".join(parts))
        colours = first.style.colours or (overlays.SIGNED if signed else overlays.COLOURS)
        sides = {e.sides for e in self.values()}
        fixed = all(e.style.largest is not None for e in self.values())
        cut = any(view.cut for view in first.views)
        notes = ["The model did not see the dark frame: it was cropped away."] if cut else []
        if self.skipped:
            notes.append(f"Left out, as they cannot run on this model: {', '.join(self.skipped)}.")
        return overlays.grid(
            pictures,
            columns=["photo", *self],
            rows=rows,
            bar=(colours, -1.0 if signed else 0.0, 1.0),
            said="attribution, of the largest in all images" if fixed else overlays.OWN_SCALE,
            ends=(sides.pop() if len(sides) == 1 else ("against", "for")) if signed else ("", ""),
            note=" ".join(notes),
            cell=max(2.6, 8 / (1 + len(self))),
        )

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The maps and values of all methods, such as ``gradcam/maps``."""
        return {f"{label}/{k}": v for label, one in self.items() for k, v in one.arrays().items()}

    def rows(self) -> list[dict[str, Any]]:
        """One row per method and image."""
        return [{**row, "method": label} for label, one in self.items() for row in one.rows()]

    def numpy(self) -> np.ndarray[Any, Any]:
        """The attribution maps of all methods, ``(methods, N, H, W)``."""
        return np.stack([one.numpy() for one in self.values()])

    def record(self) -> dict[str, Any]:
        """The records of all methods by their labels, ready for JSON; of those left out the reason."""
        left_out = {label: {"skipped": reason} for label, reason in self.skipped.items()}
        return left_out | {label: explanation.record() for label, explanation in self.items()}

    def save_into(self, folder: Path) -> None:
        """Everything, into a folder that is there."""
        names = distinct(_file_name(label) for label in self)
        for name, explanation in zip(names, self.values(), strict=True):
            explanation.save(folder / name)
        self.save(folder / "comparison.png")


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor as an array; bfloat16, which numpy lacks, in single precision."""
    kept = tensor.detach().cpu()
    return (kept.float() if kept.dtype == torch.bfloat16 else kept).numpy()


def _images(number: int) -> str:
    return f"{number} image{'' if number == 1 else 's'}"


def _file_name(label: str) -> str:
    return "".join(c if c.isalnum() or c in "+-._" else "-" for c in label)
