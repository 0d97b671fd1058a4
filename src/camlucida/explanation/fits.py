"""Which method fits a model: what runs on it, what that costs, and which one to begin with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from torch import Tensor, cuda

from camlucida.common.errors import CamlucidaError
from camlucida.common.optional import require
from camlucida.engine.borrow import borrowed
from camlucida.engine.chunks import out_of_memory
from camlucida.engine.layers import default_layer
from camlucida.engine.linear_head import LinearInputs, find_head
from camlucida.engine.memory import peak_memory
from camlucida.engine.tap import tap
from camlucida.explanation.explain import MethodLike, explain, listed
from camlucida.explanation.left_out import reason
from camlucida.explanation.photos import Images
from camlucida.explanation.subject import ModelLike, Subject
from camlucida.methods import Method, MethodRow, Progress, list_methods, method_row, row_of
from camlucida.methods.describe import words_of
from camlucida.methods.registry import METHODS
from camlucida.models.loading import noise
from camlucida.report import Column, Table

_MEGABYTE = 2**20


@dataclass(frozen=True)
class MethodFit:
    """A method on a model.

    Attributes:
        name: what users write, with the options that were given.
        row: the registry's row; ``None`` for a method that is not registered.
        reason: why it does not fit; empty where it does.
        seconds: what one image takes; ``None`` where it does not fit.
        memory: the most bytes that tensors hold together, beside the model's weights and the image.
        done: the share of the method's passes that was run: 1 where the seconds are measured, less where they are
            worked out from a first part.

    Example:
        >>> camlucida.methods_for(model, images, methods="gradcam")[0].how
        'measured'
    """

    name: str
    row: MethodRow | None
    reason: str = ""
    seconds: float | None = None
    memory: int | None = None
    done: float = 1.0

    @property
    def fits(self) -> bool:
        """Whether it explains the model."""
        return not self.reason

    @property
    def use(self) -> str:
        """When to take it, in one sentence."""
        return "" if self.row is None else self.row.use or words_of(self.row.summary)

    @property
    def how(self) -> str:
        """Whether the seconds are measured or estimated, in words."""
        if not self.fits:
            return ""
        return "measured" if self.done == 1 else f"estimated from {self.done:.1%} of the passes"

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "method": self.name,
            "fits": self.fits,
            "reason": self.reason or None,
            "seconds": self.seconds,
            "memory_bytes": self.memory,
            "how": self.how or None,
            "use": self.use,
        }


@dataclass(frozen=True, repr=False)
class MethodFits(Sequence[MethodFit]):
    """What :func:`methods_for` found, a :class:`MethodFit` for each method.

    Attributes:
        model: its name.
        layer: the layer that is explained where none is named; ``None`` where there is none.
        device: on which was measured.
        found: those that fit, the fastest first, and then the others.
        recommended: the method to begin with; ``None`` where none fits.
        why: why this one.

    Example:
        >>> found = camlucida.methods_for(model, images, methods=["gradcam", "legrad"])
        >>> [one.name for one in found], found.recommended
        (['gradcam', 'legrad'], 'gradcam')
    """

    model: str
    layer: str | None
    device: str
    found: tuple[MethodFit, ...]
    recommended: str | None = None
    why: str = ""

    def __len__(self) -> int:
        return len(self.found)

    @overload
    def __getitem__(self, index: int) -> MethodFit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[MethodFit]: ...

    def __getitem__(self, index: int | slice) -> MethodFit | Sequence[MethodFit]:
        """One of them, or those of a slice."""
        return self.found[index]

    def __iter__(self) -> Iterator[MethodFit]:
        return iter(self.found)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "model": self.model,
            "layer": self.layer,
            "device": self.device,
            "recommended": self.recommended,
            "why": self.why,
            "methods": [one.to_dict() for one in self.found],
        }

    def to_frame(self) -> Any:
        """A pandas table with a row for each method.

        Raises:
            ModelError: pandas is not installed.
        """
        return require("pandas", "benchmark").DataFrame([one.to_dict() for one in self.found])

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those that fit with what they cost, and the others with the reason; an empty table is left out."""
        fitting = [
            {
                "method": one.name + (" ★" if one.name == self.recommended else ""),
                "seconds": one.seconds,
                "memory": None if one.memory is None else one.memory / _MEGABYTE,
                "how": one.how,
                "use": one.use,
            }
            for one in self.found
            if one.fits
        ]
        others = [{"method": one.name, "why": one.reason} for one in self.found if not one.fits]
        costs = {
            "method": Column("method"),
            "seconds": Column("seconds", digits=2),
            "memory": Column("MB", digits=2),
            "how": Column("how"),
            "use": Column("use"),
        }
        reasons = {"method": Column("method"), "why": Column("why")}
        caption = f"Methods that fit {self.model}, for one image on {self.device}"
        made = (
            Table.of("fit", caption, fitting, costs),
            Table.of("do-not-fit", "Methods that do not fit", others, reasons),
        )
        return tuple(table for table in made if table.rows)

    def __repr__(self) -> str:
        """A line for each method."""
        lines = [f"Methods for {self.model}, one image on {self.device}"]
        for one in self.found:
            told = f"does not fit: {one.reason}"
            if one.seconds is not None and one.memory is not None:
                size = f"{one.memory / _MEGABYTE:.3g} MB"
                told = f"{one.seconds:.{0 if one.seconds >= 10 else 2}f} s, {size}, {one.how}. {one.use}"
            lines.append(f"{'*' if one.name == self.recommended else ' '} {one.name:22}{told}")
        return "\n".join([*lines, f"* {self.why}"])


class _EnoughError(Exception):
    """Ends a run that has shown what it costs."""

    def __init__(self, done: float, seconds: float) -> None:
        super().__init__()
        self.done = done
        self.seconds = seconds


def methods_for(
    model: ModelLike,
    image: Images | None = None,
    *,
    methods: Sequence[MethodLike] | MethodLike | None = None,
    seconds: float = 1.0,
    progress: Progress | None = None,
    **options: Any,
) -> MethodFits:
    """Which methods fit a model, what each takes for one image, and which one to begin with.

    Each method is run on the image; those of many passes for a short time, from which the rest is worked out.

    Args:
        model: as for :func:`camlucida.explain`; its weights make no difference.
        image: the image, as for :func:`camlucida.explain`; noise of the model's size by default.
        methods: which, with their options; by default all that are registered.
        seconds: after so long a method of many passes is stopped.
        progress: called with the number of methods done, and their total.
        **options: as for :func:`camlucida.explain`, such as ``target``, ``layers``, ``preprocess`` or ``device``.

    Raises:
        CamlucidaError: the model does not run on the image.

    Example:
        >>> found = camlucida.methods_for(model, images, methods=["hirescam", "legrad", "rise"], seconds=0.01)
        >>> found.recommended, [one.name for one in found if not one.fits]
        ('hirescam', ['legrad'])
    """
    of_model = ("preprocess", "class_names", "outputs", "head", "architecture", "device")
    subject = Subject.of(model, **{k: options.pop(k) for k in of_model if k in options})
    inputs = subject.prepare(noise(subject.loaded) if image is None else image).inputs[:1]
    chosen = [row.name for row in list_methods()] if methods is None else listed(methods)
    found = []
    for done, method in enumerate(chosen):
        found.append(_fit(subject, inputs, method, seconds, options))
        if progress is not None:
            progress(done + 1, len(chosen))
    found.sort(key=lambda one: (not one.fits, one.seconds or 0.0))
    layer = _layer(subject, inputs)
    name, why = _recommended(subject, inputs, layer, found)
    return MethodFits(subject.name, layer, str(inputs.device), tuple(found), name, why)


def _fit(
    subject: Subject, inputs: Tensor, method: MethodLike, limit: float, options: dict[str, Any]
) -> MethodFit:
    """Run a method twice for a short time: first watching the memory, and then the clock."""
    name, row = _named(method)

    def run(most: float) -> tuple[float, float]:
        started = _now(inputs)

        def enough(done: float, total: float) -> None:
            spent = _now(inputs) - started
            if spent > most and 0 < done < total:
                raise _EnoughError(done / total, spent)

        try:
            explain(subject.loaded, inputs, method=method, progress=enough, **options)
        except _EnoughError as stopped:
            return stopped.done, stopped.seconds
        return 1.0, _now(inputs) - started

    try:
        with peak_memory(inputs.device) as peak:
            run(limit / 2)
        done, spent = run(limit)
    except Exception as error:
        why = "the memory is too small for it" if out_of_memory(error) else reason(error)
        return MethodFit(name, row, why)
    return MethodFit(name, row, "", spent / done, peak.bytes, done)


def _named(method: MethodLike) -> tuple[str, MethodRow | None]:
    """What a method is called, with the options that were given, and its row."""
    if isinstance(method, Method):
        row = row_of(method)
        return (type(method).__name__ if row is None else row.name), row
    called, more = method if isinstance(method, tuple) else (method, {})
    known, written = METHODS.read(called if isinstance(called, str) else METHODS.name_of(called))
    options = ",".join(f"{key}={value}" for key, value in {**written, **more}.items())
    return f"{known.name}:{options}" if options else known.name, known


def _now(inputs: Tensor) -> float:
    if inputs.device.type == "cuda":
        cuda.synchronize(inputs.device)
    return time.perf_counter()


def _layer(subject: Subject, inputs: Tensor) -> str | None:
    try:
        return default_layer(subject.module, inputs)
    except CamlucidaError:
        return None


def _recommended(
    subject: Subject, inputs: Tensor, layer: str | None, found: Sequence[MethodFit]
) -> tuple[str | None, str]:
    """The method to begin with: of few passes, and one whose map the score can be read off."""
    rows = [(one.name, one.row) for one in found if one.fits and one.row is not None]
    able = [(name, row) for name, row in rows if row.discriminative and not row.control]
    sums = [(name, row) for name, row in able if row.sums_to and not row.cost.times]
    of_layer = [(name, row) for name, row in sums if row.sums_to == "sum"]
    by_channel = next((n for n, row in of_layer if row.make is method_row("gradcam").make), None)
    by_cell = next((name for name, row in of_layer if row.weights == "cell"), None)
    if layer is not None and by_channel and _linear_behind(subject, inputs, layer):
        return by_channel, (
            f"{by_channel} is the one to begin with: behind layer {layer} stand only pooling and one linear layer, so "
            "that its map is the exact share of each cell in the score, in one quick pass"
        )
    if by_cell:
        return by_cell, (
            f"{by_cell} is the one to begin with: more than pooling and one linear layer follows layer {layer}, where "
            "one weight for a whole channel, as in Grad-CAM, can light up cells that the score ignores; it weighs "
            "cell by cell"
        )
    whole = [name for name, row in sums if row.explains == "input" and not row.local]
    if name := next(iter((*whole, *(n for n, _ in able))), None):
        promise = ", and its shares add up to the score" if name in whole else ""
        return (
            name,
            f"{name} is the one to begin with: the fastest that explains the input{promise}",
        )
    return None, "no method fits that asks what is explained"


def _linear_behind(subject: Subject, inputs: Tensor, layer: str) -> bool:
    with borrowed(subject.module, inputs) as module, LinearInputs(module) as seen:
        tapped = tap(module, inputs, layer, gradients=False)
    return find_head(tapped.activations[layer], tapped.outputs.detach(), seen.calls) is not None
