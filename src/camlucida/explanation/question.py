"""What is asked of a model about images: settled once, answered batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import nn

from camlucida.common.errors import CamlucidaError, MethodError
from camlucida.common.grammar import options_of
from camlucida.common.jsonable import digest, plain
from camlucida.common.provenance import Provenance, fingerprint
from camlucida.common.seeds import Seed
from camlucida.common.version import __version__
from camlucida.engine.layers import GridRule, Layers, resolve_all
from camlucida.engine.maps import Steps, preset
from camlucida.engine.reading import Outputs
from camlucida.engine.tap import sharing
from camlucida.explanation.diagnostics import (
    broken_images,
    broken_weights,
    diagnose,
    predictions_of,
)
from camlucida.explanation.left_out import LeftOut
from camlucida.explanation.photos import Batch
from camlucida.explanation.result import Comparison, Explanation
from camlucida.explanation.subject import Subject, read_target
from camlucida.methods import Method, Progress, Task, build, method_name, row_of
from camlucida.methods.own import Explainer
from camlucida.methods.registry import METHODS, WRAPPING
from camlucida.models import LoadedModel
from camlucida.targets import Label, LogitMargin, Target, TargetLike, as_target

NamedMethod: TypeAlias = "str | Method | tuple[str, Mapping[str, Any]]"
"""A registered name, also as ``fame:iterations=20``; a method object; or a name with its options."""

MethodLike: TypeAlias = "NamedMethod | Explainer | tuple[Explainer, Mapping[str, Any]]"
"""The same, or a function ``(model, inputs, target) -> maps`` of one's own, alone or with its options."""

_LABEL = 16  # longest value of an option that is shown in a label


@dataclass(frozen=True)
class _Plan:
    """A method and what it explains.

    Attributes:
        method: with its options.
        target: as it is meant for the model's outputs.
        label: of both, for people.
        module: the model as the target takes its outputs.
        outputs: what they are.
        origin: what decides its maps beside the options.
    """

    method: Method
    target: Target
    label: str
    module: nn.Module
    outputs: Outputs
    origin: Mapping[str, str]


@dataclass
class Question:
    """Methods and targets for a model, and all else that decides its explanations.

    Attributes:
        subject: the model, and what is known about it.
        methods: a method or a list of them.
        targets: what is explained, by the names that labels get where there are several.
        options: of the method, where it is one.
        layers, steps, grid, seed, top, strict: see :func:`camlucida.explain`.
        loaded: the model as it was loaded, which refuses targets that it has no answer to.
    """

    subject: Subject
    methods: MethodLike | Sequence[MethodLike]
    targets: Mapping[str, TargetLike]
    options: Mapping[str, Any] = field(default_factory=dict)
    layers: Layers | None = None
    steps: Steps | str | None = None
    grid: GridRule | Mapping[str, GridRule] | None = None
    seed: Seed = 0
    top: int = 5
    strict: bool = False
    loaded: LoadedModel | None = None

    def __post_init__(self) -> None:
        """Check what needs no image."""
        if self.top < 1:
            raise CamlucidaError(f"top must be at least 1 prediction, got {self.top}")
        chosen = listed(self.methods)
        if self.options and len(chosen) > 1:
            raise MethodError(
                f"the options {', '.join(self.options)} cannot be shared by {len(chosen)} methods; give each its own "
                "as a pair, such as ('gradcam++', {'form': 'true'})"
            )
        if isinstance(self.seed, torch.Generator):
            # Drawn once, so that all batches and methods share it.
            self.seed = int(
                torch.randint(2**62, (1,), generator=self.seed, device=self.seed.device)
            )
        self._plans: dict[int, _Plan] = {}
        self._left_out = LeftOut([], strict=True)
        self._weights = ""
        self._hashes: dict[Any, str] = {}

    @property
    def answers(self) -> int:
        """How many maps each image gets."""
        return len(listed(self.methods)) * len(self.targets)

    def record(self) -> dict[str, Any]:
        """Everything that decides the explanations of an image, ready for JSON."""
        subject, layers, names = self.subject, self.layers, self.subject.class_names
        return {
            "camlucida": __version__,
            "model": subject.name,
            "weights_sha256": fingerprint(subject.module),
            "preprocess": subject.preprocess.to_dict() if subject.preprocess else None,
            "class_names_sha256": None if names is None else digest(names),
            "outputs": subject.outputs.describe(),
            "methods": [_described(m) for m in listed(self.methods)],
            "options": plain(self.options),
            "targets": {
                title: target if isinstance(target, str) else as_target(target).describe()
                for title, target in self.targets.items()
            },
            "layers": None if layers is None else [*resolve_all(subject.module, layers)],
            "steps": str(self.steps),
            "grid": str(self.grid),
            "seed": self.seed,
            "top": self.top,
        }

    def _settle(self, batch: Batch) -> None:
        """Each method with what it explains, as the model's outputs on some images say; looked at once."""
        if self._plans:
            return
        subject = self.subject
        settled: list[tuple[Method, Target, str]] = []
        with subject.taking(batch.inputs):
            names = subject.names(batch)
            for title, target in self.targets.items():
                resolved = read_target(target, names)
                of = f": {title}" if len(self.targets) > 1 else ""
                own = [
                    (
                        made,
                        read_target(wanted, names),
                        label + of,
                    )  # a method's options may name classes too
                    for made, wanted, label in (
                        settle(one, resolved, self.options) for one in listed(self.methods)
                    )
                ]
                if self.loaded is not None and any(_asks(one) for one, _, _ in own):
                    self.loaded.check_target(target)
                settled += own
            self._left_out = LeftOut([label for _, _, label in settled], strict=self.strict)
            plans = _read_by(subject, batch, settled, self._left_out)
        self._weights = broken_weights(subject.module)
        self._plans = plans

    def answer(
        self, batch: Batch, places: Sequence[int], total: int, progress: Progress | None = None
    ) -> Explanation | Comparison:
        """The explanation of some images; for a list of methods a comparison.

        Args:
            batch: the images.
            places: where they stand among all.
            total: how many those are.
            progress: called with the number of maps done, in fractions, and of this batch's.
        """
        self._settle(batch)
        count, plans, left_out = len(batch.inputs), self._plans, self._left_out.again()
        anywhere = any(plan.method.uses_layers for plan in plans.values())
        shared = sharing(batch.inputs) if len(plans) > 1 else nullcontext()
        found = []
        with self.subject.taking(batch.inputs), shared:
            for number, (position, plan) in enumerate(plans.items()):
                with left_out.trying(position):
                    task = Task.of(
                        plan.module,
                        batch.inputs,
                        _part(plan.target, places, total),
                        seed=self.seed,
                        progress=_share(progress, number * count, count, len(plans) * count),
                        grid=self.grid,
                        preprocess=self.subject.preprocess,
                    )
                    asked = self.layers if plan.method.uses_layers or not anywhere else None
                    task = replace(task, layers=_layers(plan.method, task, asked, plan.label))
                    found.append(self._explain(plan, task, batch))
                if progress is not None:
                    progress((number + 1) * count, len(plans) * count)
        return Comparison(found, left_out.reasons) if self.several else found[0]

    @property
    def several(self) -> bool:
        """Whether the answer is a comparison."""
        return is_several(self.methods) or len(self.targets) > 1

    def _explain(self, plan: _Plan, task: Task, batch: Batch) -> Explanation:
        subject, steps, seed = self.subject, self.steps, self.seed
        method, label, outputs = plan.method, plan.label, plan.outputs
        raw, inputs, row = method.run(task), task.inputs, row_of(method)
        subject.check_gradient(raw, row)
        used = preset(steps, method.steps) if isinstance(steps, str) else steps or method.steps
        with torch.inference_mode(mode=False), torch.no_grad():
            broken = broken_images(raw, self._weights)
            whole = torch.tensor([not said for said in broken], device=raw.fused.device)
            finite = raw.fused.isfinite().flatten(1).all(1)
            clean = (finite & whole)[:, None, None]
            signed = raw.fused
            if raw.by_steps and steps is not None:
                layers_clean = {name: torch.where(clean, m, 0) for name, m in raw.layers.items()}
                fused = used.fuse(layers_clean, task.size)
                signed = fused if len(raw.layers) > 1 else signed
            else:
                fused = torch.where(clean, signed, 0)
            logits = (
                raw.outputs if isinstance(raw.target, Label) else raw.target.logits(raw.outputs)
            )
            probabilities = None if logits is None else outputs.probabilities(logits)
            said = (*subject.notes, *outputs.notes, *task.target.assumed(raw.outputs))
            own = {i: [*raw.notes.get(i, ()), *notes] for i, notes in enumerate(batch.notes)}
            names = outputs.names(subject.class_names)
            return Explanation(
                maps=used.finish(fused, task.size),
                raw=used.layer(torch.where(clean, signed, 0)),
                signed=signed,
                layer_maps=raw.layers,
                target_values=raw.values,
                target=raw.target,
                logits=logits,
                predictions=predictions_of(
                    logits, probabilities, outputs, self.top, names, len(inputs)
                ),
                layers=tuple(raw.layers) if method.uses_layers else tuple(task.layers),  # type: ignore[arg-type]
                method=method,
                label=label,
                diagnostics=diagnose(
                    replace(raw, notes=own),
                    finite,
                    probabilities,
                    outputs,
                    broken,
                    [said] * len(inputs),
                    task.target.remarks(raw.outputs),
                    rectified=used.rectify,
                ),
                details=raw.details,
                provenance=Provenance(
                    task.model,
                    {
                        "model": subject.name,
                        **method.describe(),
                        **plan.origin,
                        "target": raw.target.describe(),
                        "outputs": outputs.describe(),
                        "layers": list(raw.layers),
                        "steps": {**vars(used)},
                        "seed": seed,
                        "input_size": list(inputs.shape[1:]),
                        "dtype": str(inputs.dtype),
                        "device": str(inputs.device),
                        "preprocess": subject.preprocess.to_dict() if subject.preprocess else None,
                    },
                    self._hashes,
                ),
                views=batch.views.named(names),
                sources=batch.sources,
                outputs=outputs,
            )


def _read_by(
    subject: Subject,
    batch: Batch,
    settled: Sequence[tuple[Method, Target, str]],
    left_out: LeftOut,
) -> dict[int, _Plan]:
    """The plans by position; the model's outputs are looked at once for targets of one kind."""
    plans: dict[int, _Plan] = {}
    found: Outputs | None = None
    for position, (method, target, label) in enumerate(settled):
        known = subject if found is None else replace(subject, outputs=found)
        with left_out.trying(position):
            module, meant, outputs = known.reader(target, batch, asks=_asks(method))
            if outputs.settled:
                found = outputs
            row = row_of(method)
            plans[position] = _Plan(
                method, meant, label, module, outputs, row.origin if row else {}
            )
    return plans


def _asks(method: Method) -> bool:
    """Whether a method's map depends on what is explained."""
    row = row_of(method)
    return row is None or row.discriminative


def _described(method: NamedMethod) -> Any:
    """A method with its options, and what its maps depend on beside them, ready for JSON."""
    if isinstance(method, Method):
        row, asked = row_of(method), method.describe()
    else:
        row = METHODS.read(method if isinstance(method, str) else method[0])[0]
        asked = plain(method)
    return {"asked": asked, **row.origin} if row and row.origin else asked


def listed(method: Any) -> list[Any]:
    """The methods of a list, or the one that was given; functions by the names that they are known under from now on.

    Raises:
        MethodError: the list is empty, or two functions in it have one name.
    """
    given = list(method) if is_several(method) else [method]
    if not given:
        raise MethodError("no method was given")
    functions: dict[str, Any] = {}

    def named(one: Any) -> Any:
        if isinstance(one, tuple) and len(one) == 2:
            return named(one[0]), one[1]
        if not callable(one):
            return one
        name = METHODS.name_of(one)
        if functions.setdefault(name, one) is not one:
            raise MethodError(
                f"two functions are both called {name}; give one of them another name"
            )
        return name

    return [named(one) for one in given]


def settable(method: MethodLike) -> Iterable[str]:
    """The options that a method takes."""
    name = method[0] if isinstance(method, tuple) else method
    return METHODS.read(name)[0].settable if isinstance(name, str) else ()


def is_several(method: Any) -> bool:
    """Whether it is a list of methods, not a name or a pair of a name and its options."""
    is_pair = isinstance(method, tuple) and len(method) == 2 and isinstance(method[1], Mapping)
    return isinstance(method, Sequence) and not isinstance(method, str) and not is_pair


def _share(progress: Progress | None, before: int, images: int, total: int) -> Progress | None:
    """A method's own progress on some images, as part of the whole work."""
    if progress is None:
        return None
    return lambda done, of: progress(before + images * done / of, total)


def settle(
    method: MethodLike, target: Target, options: Mapping[str, Any] | None = None
) -> tuple[Method, Target, str]:
    """The method, the target that its name stands for or else the given one, and its label.

    Raises:
        MethodError: the method or an option is unknown, or does not go with the target.
    """
    options = dict(options or {})
    if isinstance(method, tuple):
        name, own = method
        method, options = name, {**own, **options}
    implied: type[Target] | None = None
    if isinstance(method, str):
        built, wanted = build(method, target, **options)
        row = METHODS.read(method)[0]
        label, implied = row.name, row.target
    elif isinstance(method, Method):
        if options:
            raise MethodError(
                f"{type(method).__name__} was given as an object; set {', '.join(options)} on it"
            )
        built, wanted = method, target
        label = method_name(method)
    else:
        raise MethodError(
            f"a method is a name, a Method object or a pair of a name and options, got {type(method).__name__}"
        )
    defaults = options_of(type(built.unsmoothed))
    # As text, since arrays and tensors are neither equal nor different.
    changed = {
        name: value
        for name, value in built.describe()["options"].items()
        if (name in defaults or name in WRAPPING)
        and str(value) != str(defaults[name].default if name in defaults else None)
    }
    extra = [
        k.replace("_", " ") if k in WRAPPING else f"{k}={v}"
        for k, v in changed.items()
        if len(str(v)) <= _LABEL
    ]
    if implied is LogitMargin and isinstance(wanted, LogitMargin) and wanted.aggregator != "mean":
        extra.insert(0, wanted.aggregator)
    return built, wanted, label + (f" ({', '.join(extra)})" if extra else "")


def _part(target: Target, places: Sequence[int], total: int) -> Target:
    """A target's share for some of all images; one that holds no list is shared by all."""
    target = target.for_images(total)
    return target if len(places) == total else target.take(torch.tensor(places, device="cpu"))


def _layers(method: Method, task: Task, layers: Layers | None, label: str) -> tuple[str, ...]:
    """Names of the layers: those that were asked for, or else the method's own choice."""
    if layers is None:
        return method.default_layers(task.model, task.inputs)
    if not method.uses_layers:
        raise MethodError(f"{label} explains the input through the whole model; leave out layers")
    return tuple(resolve_all(task.model, layers))
