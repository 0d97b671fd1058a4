"""``explain``: from a model and photos to explanations."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, overload

import torch
from torch import nn

from camlucida.common.errors import CamlucidaError, MethodError
from camlucida.common.grammar import refuse_arguments
from camlucida.common.provenance import Provenance
from camlucida.common.seeds import Seed
from camlucida.engine.layers import GridRule, Layers, resolve_all
from camlucida.engine.maps import Steps, preset
from camlucida.engine.reading import Outputs, OutputsLike
from camlucida.engine.tap import sharing
from camlucida.explanation.diagnostics import (
    broken_images,
    broken_weights,
    diagnose,
    predictions_of,
)
from camlucida.explanation.left_out import LeftOut
from camlucida.explanation.result import Comparison, Explanation
from camlucida.explanation.subject import (
    Batch,
    Images,
    ModelLike,
    PreprocessGiven,
    Subject,
    read_target,
)
from camlucida.methods import Method, Progress, Task, build, method_name, method_row, row_of
from camlucida.methods.registry import WRAPPING
from camlucida.models import LoadedModel
from camlucida.models.factory import ArchitectureLike
from camlucida.targets import (
    Label,
    LogitMargin,
    Target,
    TargetLike,
)
from camlucida.targets.base import join_targets

MethodLike: TypeAlias = "str | Method | tuple[str, Mapping[str, Any]]"
"""A registered name, also as ``fame:iterations=20``; a method object; or a name with its options."""

_LABEL = 16  # longest value of an option that is shown in a label


@overload
def explain(
    model: ModelLike,
    images: Images,
    *,
    method: MethodLike = ...,
    **options: Any,
) -> Explanation: ...


@overload
def explain(
    model: ModelLike,
    images: Images,
    *,
    method: Sequence[MethodLike],
    **options: Any,
) -> Comparison: ...


def explain(
    model: ModelLike,
    images: Images,
    *,
    method: MethodLike | Sequence[MethodLike] = "gradcam",
    target: TargetLike = None,
    layers: Layers | None = None,
    steps: Steps | str | None = None,
    preprocess: PreprocessGiven | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    outputs: OutputsLike = None,
    head: str | int | None = None,
    architecture: ArchitectureLike | None = None,
    device: str | torch.device | None = None,
    seed: Seed = 0,
    batch_size: int = 32,
    top: int = 5,
    grid: GridRule | Mapping[str, GridRule] | None = None,
    progress: Progress | None = None,
    strict: bool = False,
    **options: Any,
) -> Explanation | Comparison:
    """Explain what a model saw in images.

    Any number of threads may explain one model, in evaluation or in training mode: each waits for its turn.

    Args:
        model: any torch vision model, what :func:`camlucida.load_model` returned, or a name or file that it takes.
            It is given back exactly as it was.
        images: a tensor ``(N, C, H, W)`` or ``(C, H, W)`` as the model expects it, which is used as it is; or a
            photo (path, PIL image, array), a folder of photos, a data set, or a list of these. Photos need the
            model's preprocessing. Also a mapping with one such tensor, ``{"pixel_values": x}``.
        method: a registered name (see ``camlucida methods``), also with options as in ``"fame:iterations=20"``;
            a method object; a pair of a name and its options; or a list of these. Methods of a list share their
            forward passes where they look at the same layers.
        target: what is explained: a class index or name, one per image; a target such as ``LogitMargin()``, also
            as the command line takes it, ``"margin:aggregator=max"``; or a function from the model's output, of
            whatever type, to ``(N,)``. ``None`` is the predicted class's logit, or the value of a regression.
        layers: names or modules; by default the last feature map of the model. Beside methods of a list that
            explain layers, those that explain the input go without.
        steps: how raw maps become attribution maps: a :class:`camlucida.Steps`, or a preset,
            ``"pytorch-grad-cam"``, ``"unscaled"`` or ``"signed"``. By default the method's own.
        preprocess: how photos become inputs: a :class:`camlucida.Preprocess`, or any function of a PIL image, such
            as a transform of torchvision; or some of a ``Preprocess``'s values by name, ``{"size": 96}``. By default
            the model's own, where it says.
        class_names: one per class, or a text file with one per line; by default the model's own.
        outputs: what the model's outputs are: ``"classes"`` that exclude each other, ``"labels"`` of which several
            may be present, ``"binary"`` (one logit), ``"regression"``, ``"dense"`` or ``"embedding"``, or the
            activation that it ends in, ``"logits"``, ``"softmax"``, ``"log-softmax"`` or ``"sigmoid"``; with options
            as in ``"labels:threshold=0.3"``. By default it is found, and what is assumed is among the messages.
        head: which of several outputs is explained, by name or position.
        architecture: of a model that is a checkpoint file, as for :func:`camlucida.load_model`.
        device: where the model is put, such as ``"cuda"``; by default it stays where it is.
        seed: an integer, or a generator that one is drawn from. Each image has its own random stream, so that a
            batch equals its images one by one.
        batch_size: images that are explained at a time.
        top: number of predictions kept per image, at least 1.
        grid: how layer outputs are read as feature maps; found automatically for convolutions and tokens.
        progress: called with the number of maps done and their total, in fractions for methods that take
            many passes.
        strict: raise where one of several methods cannot run on this model; otherwise it is left out, and named in
            ``Comparison.skipped`` with the reason.
        **options: fields of the method, such as ``form="true"`` for ``gradcam++``; with several methods pairs
            instead, ``("gradcam++", {"form": "true"})``.

    Returns:
        An :class:`Explanation` of all images; for a list of methods a :class:`Comparison`, which is a mapping
        from labels to explanations.

    Raises:
        CamlucidaError: one of its kinds (``ImageError``, ``LayerError``, ``TargetError``, ``MethodError``,
            ``ModelError``); its text says what was given, what was expected and what to do.

    Example:
        >>> explanation = camlucida.explain(model, images, method="gradcam++", target=3)
        >>> explanation.maps.shape
        torch.Size([2, 32, 32])
        >>> both = camlucida.explain(model, images, method=["gradcam", "fame:iterations=2"])
        >>> list(both)
        ['gradcam', 'fame (iterations=2)']
    """
    several, chosen = _several(method), listed(method)
    if not any(isinstance(one, Method) for one in chosen):  # an object has its options
        passed_on = [name for one in chosen for name in _settable(one)]
        refuse_arguments(explain, options, passed_on, MethodError)
    subject = Subject.of(
        model, preprocess, class_names, outputs, head, architecture=architecture, device=device
    )
    if batch_size < 1:
        raise CamlucidaError(f"batch_size must be at least 1 image, got {batch_size}")
    if top < 1:
        raise CamlucidaError(f"top must be at least 1 prediction, got {top}")
    if options and len(chosen) > 1:
        raise MethodError(
            f"the options {', '.join(options)} cannot be shared by {len(chosen)} methods; give each its own as "
            "a pair, such as ('gradcam++', {'form': 'true'})"
        )
    if isinstance(seed, torch.Generator):
        # Drawn once, so that all batches and methods share it.
        seed = int(torch.randint(2**62, (1,), generator=seed, device=seed.device))
    batch = subject.prepare(images)
    with subject.taking(batch.inputs):
        names = subject.names(batch)
        resolved = read_target(target, names)
    settled = [
        (made, read_target(wanted, names), label)  # a method's options may name classes too
        for made, wanted, label in (settle(one, resolved, options) for one in chosen)
    ]
    if isinstance(model, LoadedModel) and any(_asks(one) for one, _, _ in settled):
        model.check_target(target)
    anywhere = any(one.uses_layers for one, _, _ in settled)
    weights = broken_weights(subject.module)
    left_out = LeftOut([label for _, _, label in settled], strict=strict)
    with subject.taking(batch.inputs):
        plans = _read_by(subject, batch, settled, left_out)
    done, total = 0, len(plans) * len(batch.views)
    found: dict[int, list[Explanation]] = {position: [] for position in plans}
    for start in range(0, len(batch.views), batch_size):
        part = batch.part(start, start + batch_size)
        shared = sharing(part.inputs) if len(plans) > 1 else nullcontext()
        with subject.taking(part.inputs), shared:
            for position, plan in plans.items():
                if position not in left_out:
                    with left_out.trying(position):
                        task = Task.of(
                            plan.module,
                            part.inputs,
                            _part(plan.target, start, len(part.inputs), len(batch.views)),
                            seed=seed,
                            progress=_share(progress, done, len(part.inputs), total),
                            grid=grid,
                            preprocess=subject.preprocess,
                        )
                        asked = layers if plan.method.uses_layers or not anywhere else None
                        task = replace(task, layers=_layers(plan.method, task, asked, plan.label))
                        made = _explain(plan, task, subject, part, weights, steps, top, seed)
                        found[position].append(made)
                done += len(part.inputs)
                if progress is not None:
                    progress(done, total)
    explanations = [_join(parts, batch) for at, parts in found.items() if at not in left_out]
    return Comparison(explanations, left_out.reasons) if several else explanations[0]


@dataclass(frozen=True)
class _Plan:
    """A method and what it explains.

    Attributes:
        method: with its options.
        target: as it is meant for the model's outputs.
        label: of both, for people.
        module: the model as the target takes its outputs.
        outputs: what they are.
    """

    method: Method
    target: Target
    label: str
    module: nn.Module
    outputs: Outputs


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
            plans[position] = _Plan(method, meant, label, module, outputs)
    return plans


def _asks(method: Method) -> bool:
    """Whether a method's map depends on what is explained."""
    row = row_of(method)
    return row is None or row.discriminative


def listed(method: Any) -> list[Any]:
    """The methods of a list, or the one that was given.

    Raises:
        MethodError: the list is empty.
    """
    if not _several(method):
        return [method]
    found = list(method)
    if not found:
        raise MethodError("no method was given")
    return found


def _settable(method: MethodLike) -> Iterable[str]:
    """The options that a method takes."""
    name = method[0] if isinstance(method, tuple) else method
    return method_row(name.partition(":")[0]).settable if isinstance(name, str) else ()


def _several(method: Any) -> bool:
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
        label = method.partition(":")[0].strip()
        implied = method_row(label).target
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
    changed = {
        name: value
        for name, value in built.describe()["options"].items()
        if value != getattr(type(built.unsmoothed), name, None if name in WRAPPING else value)
    }
    extra = [
        k.replace("_", " ") if k in WRAPPING else f"{k}={v}"
        for k, v in changed.items()
        if len(str(v)) <= _LABEL
    ]
    if implied is LogitMargin and isinstance(wanted, LogitMargin) and wanted.aggregator != "mean":
        extra.insert(0, wanted.aggregator)
    return built, wanted, label + (f" ({', '.join(extra)})" if extra else "")


def _part(target: Target, start: int, length: int, total: int) -> Target:
    """A target's share for some images of a longer list; one that holds no list is shared by all."""
    target = target.for_images(total)
    return (
        target
        if length == total
        else target.take(torch.arange(start, start + length, device="cpu"))
    )


def _layers(method: Method, task: Task, layers: Layers | None, label: str) -> tuple[str, ...]:
    """Names of the layers: those that were asked for, or else the method's own choice."""
    if layers is None:
        return method.default_layers(task.model, task.inputs)
    if not method.uses_layers:
        raise MethodError(f"{label} explains the input through the whole model; leave out layers")
    return tuple(resolve_all(task.model, layers))


def _explain(
    plan: _Plan,
    task: Task,
    subject: Subject,
    batch: Batch,
    weights: str,
    steps: Steps | str | None,
    top: int,
    seed: Seed,
) -> Explanation:
    method, label, outputs = plan.method, plan.label, plan.outputs
    raw, inputs = method.run(task), task.inputs
    subject.check_gradient(raw, row_of(method))
    used = preset(steps, method.steps) if isinstance(steps, str) else steps or method.steps
    with torch.inference_mode(mode=False), torch.no_grad():
        broken = broken_images(raw, weights)
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
        logits = raw.outputs if isinstance(raw.target, Label) else raw.target.logits(raw.outputs)
        probabilities = None if logits is None else outputs.probabilities(logits)
        said = (*subject.notes, *outputs.notes, *task.target.assumed(raw.outputs))
        assumed = [(*said, *own) for own in batch.notes]
        names = outputs.names(subject.class_names)
        return Explanation(
            maps=used.finish(fused, task.size),
            raw=used.layer(torch.where(clean, signed, 0)),
            signed=signed,
            layer_maps=raw.layers,
            target_values=raw.values,
            target=raw.target,
            logits=logits,
            predictions=predictions_of(logits, probabilities, outputs, top, names, len(inputs)),
            layers=tuple(raw.layers) if method.uses_layers else tuple(task.layers),  # type: ignore[arg-type]
            method=method,
            label=label,
            diagnostics=diagnose(
                raw,
                finite,
                probabilities,
                outputs,
                broken,
                assumed,
                task.target.remarks(raw.outputs),
                rectified=used.rectify,
            ),
            details=raw.details,
            provenance=Provenance(
                task.model,
                {
                    "model": subject.name,
                    **method.describe(),
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
            ),
            views=batch.views.named(names),
            sources=batch.sources,
            outputs=outputs,
        )


def _join(parts: list[Explanation], batch: Batch) -> Explanation:
    """One explanation from those of consecutive batches."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    target = join_targets([e.target for e in parts])
    facts = {**first.provenance.facts, "target": target.describe()}
    return first.with_images(
        lambda name: torch.cat([getattr(e, name) for e in parts]),
        lambda name, key: torch.cat([getattr(e, name)[key] for e in parts]),
        lambda name: tuple(row for e in parts for row in getattr(e, name)),
        target=target,
        provenance=replace(first.provenance, facts=facts),
        views=batch.views.named(first.views.class_names),
        sources=batch.sources,
    )
