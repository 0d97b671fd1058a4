"""Does a low layer score say that a layer can be left out? The claim of I-CAM's section 4, put to the test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits import AuditReport, Illustration, Request, Verdict, decided
from camlucida.audits.request import AuditData
from camlucida.audits.trial import Trial
from camlucida.audits.verdicts import OUTCOMES, sentences
from camlucida.common.statistics import mean_std, permuted_p, rank_correlation, spearman
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers.blocks import candidate_layers
from camlucida.engine.outputs import first_tensor
from camlucida.engine.tap import tap
from camlucida.explanation.explain import explain
from camlucida.explanation.subject import ModelLike
from camlucida.methods.build import build_as
from camlucida.methods.icam import ICAM
from camlucida.report import Column, Table
from camlucida.report.charts import Point, scatter

ABOUT = (
    "The authors say that layers of low score can be bypassed or pruned with little loss. Bypassed: the block that the "
    "layer is, or lies in, returns what it received, where both have one shape. Halved: of the layer's channels, the "
    "half with the smallest mean size on these images is set to zero. What it costs is what the logarithm of the "
    "predicted class's probability loses."
)

PREDICTS = 0.5
"""Least mean rank correlation of score and cost: with less, three quarters of the order are something else's."""

_FEWEST = 4  # layers, below which their order says nothing
_SAY = sentences("""
predicts: A layer with a low score can be {way} with little loss: on each image the rank correlation of score and cost
    over {layers} layers is {value:.2f} (at least {least:g} passes).
does not: A low score does not say that a layer can be {way}: on each image the rank correlation of score and cost over
    {layers} layers is {value:.2f} (at least {least:g} passes).
depth: To say that a layer costs the more the nearer it is to the input gets {depth:.2f}.
dearest: Of the half with lower scores, {layer} costs most: {cost:.2f} of log-probability, at {share:.1 %} of the score.
layers: Mean score and mean cost of the layers correlate at {rho:.2f} (p = {p:.2g}).
too few: Only {layers:n layer} can be {way}, too few for an order.
""")


@dataclass(frozen=True)
class LeftOut:
    """What leaving out the layers costs, in one way.

    Attributes:
        way: ``"bypassed"`` or ``"halved"``.
        layers: those that can be.
        cost: log-probability that the predicted class loses, ``(N, L)``.
        kept: share of the predictions that stay, of each layer.
    """

    way: str
    layers: tuple[str, ...]
    cost: Tensor
    kept: tuple[float, ...]


def audit_layer_scores(
    model: ModelLike = "embedded",
    data: AuditData | None = None,
    *,
    method: ICAM | str = "icam",
    **options: Any,
) -> AuditReport:
    """Does I-CAM's layer score say which layers can be bypassed or pruned with little loss?

    Args:
        model: any classifier; given back as it was.
        data: see :class:`camlucida.audits.Request`.
        method: I-CAM with its options, also as text.
        **options: the other fields of :class:`camlucida.audits.Request`, such as ``count``.

    Raises:
        CamlucidaError: the model is no classifier, or no image can be read.

    Example:
        >>> report = camlucida.studies.icam.audit_layer_scores(model, images, method="icam:n_perturb=1")
        >>> [verdict.subject for verdict in report.verdicts]
        ['bypassed', 'halved']
    """
    request = Request.of(audit_layer_scores, model, data, options)
    trial, icam = request.open(12, 50).ranked(), build_as(ICAM, method)
    found = explain(
        trial.model, trial.inputs, method=icam, target=trial.classes, preprocess=trial.preprocess, seed=trial.seed,
        batch_size=trial.batch_size,
    )  # fmt: skip
    names, score = found.layers, found.details["layer_score"].double().cpu()
    share = score / score.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    every = [left_out(trial, names, way, request.say) for way in ("bypassed", "halved")]
    verdicts = tuple(_verdict(one, names, share, trial.seed) for one in every)
    rows = [
        (
            name,
            float(share[:, i].mean()),
            *(
                value
                for one in every
                for value in (
                    (float(one.cost[:, one.layers.index(name)].mean()), one.kept[one.layers.index(name)])
                    if name in one.layers
                    else (None, None)
                )
            ),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    columns: list[str | Column] = [
        "layer", Column("share of the score", places=3),
        *(
            Column(title, places=places)
            for one in every
            for title, places in ((f"cost, {one.way}", 2), (f"predictions kept, {one.way}", 2))
        ),
    ]  # fmt: skip
    table = Table.of_rows("layer-scores", "Means over the images, in network order", columns, rows)
    said = "; ".join(f"{v.subject}: {OUTCOMES[v.outcome]}" for v in verdicts)
    return AuditReport(
        "layer-scores",
        f"Can layers of a low score be left out? {trial.name}",
        f"{ABOUT}\n{trial.name}, {len(trial.inputs)} images, the predicted class.",
        f"Does a low I-CAM score say that a layer can be left out? {said}.",
        verdicts,
        (table,),
        tuple(_chart(one, names, share) for one in every if one.layers),
        {**request.record(trial), "method": icam.describe(), "layers": list(names), "share": share.tolist(),
         "cost": {one.way: {"layers": list(one.layers), "cost": one.cost.tolist()} for one in every}},
    )  # fmt: skip


def left_out(
    trial: Trial,
    names: Sequence[str],
    way: str,
    say: Callable[[str, float, float], object] = lambda *_: None,
) -> LeftOut:
    """What it costs to leave out each of some layers in one way; layers that cannot be are missing."""
    changes = (_bypasses if way == "bypassed" else _halvings)(trial, names)
    before = _log_probability(trial)
    costs, kept = [], []
    for number, (name, (module, change)) in enumerate(changes.items()):
        say(f"{way}: {name}", number, len(changes))
        handle = module.register_forward_hook(change)
        try:
            after = _log_probability(trial)
        finally:
            handle.remove()
        costs.append(before.values - after.values)
        kept.append(float((after.indices == before.indices).double().mean()))
    none = before.values.new_zeros(len(trial.inputs), 0)
    cost = torch.stack(costs, 1) if costs else none
    return LeftOut(way, tuple(changes), cost.cpu(), tuple(kept))


@dataclass(frozen=True)
class _Said:
    values: Tensor
    indices: Tensor


def _log_probability(trial: Trial) -> _Said:
    """Of the explained class, and what is most probable."""
    logits = trial.logits().double()
    assert trial.classes is not None  # noqa: S101 - it is ranked
    return _Said(logits.log_softmax(1).gather(1, trial.classes[:, None])[:, 0], logits.argmax(1))


_Changes = dict[str, tuple[nn.Module, Callable[..., Any]]]


def _bypasses(trial: Trial, names: Sequence[str]) -> _Changes:
    """For each layer its block, where that returns the shape that it receives, and a hook that returns that."""
    blocks = candidate_layers(trial.model, trial.inputs)
    same: set[str] = set()
    with borrowed(trial.model, trial.inputs) as module:
        own = {
            name: next((b for b in blocks if name == b or name.startswith(f"{b}.")), "")
            for name in names
        }

        def watch(block: str) -> Callable[..., None]:
            def hook(_m: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                    same.update([block] if args[0].shape == output.shape else [])

            return hook

        held = {
            block: module.get_submodule(block)
            for block in own.values()
            if block and next(module.get_submodule(block).parameters(), None) is not None
        }
        handles = [one.register_forward_hook(watch(name)) for name, one in held.items()]
        try:
            with torch.no_grad():
                module(trial.inputs[:1].clone())
        finally:
            for handle in handles:
                handle.remove()
    bypass = lambda _m, args, _o: args[0]  # noqa: E731
    return {name: (held[block], bypass) for name, block in own.items() if block in same}


def _halvings(trial: Trial, names: Sequence[str]) -> _Changes:
    """For each layer, a hook that sets the half of its channels to zero that are smallest on the images."""
    with borrowed(trial.model, trial.inputs) as module:
        sizes: dict[str, Tensor] = {}
        for part in torch.split(trial.inputs, trial.batch_size):
            seen = tap(module, part, list(names), gradients=False).activations
            for name, activation in seen.items():
                added = activation.detach().abs().double().mean((2, 3)).sum(0)
                sizes[name] = sizes.get(name, 0) + added
        modules = {name: module.get_submodule(name) for name in names}
    found: _Changes = {}
    for name, size in sizes.items():
        keep = torch.ones_like(size)
        keep[size.argsort()[: len(size) // 2]] = 0
        found[name] = (modules[name], _zeroed(keep))
    return found


def _zeroed(keep: Tensor) -> Callable[..., Any]:
    def hook(_m: nn.Module, _a: Any, output: Any) -> Tensor:
        values = first_tensor(output)
        # A map has its channels first, tokens and maps of some transformers last.
        first = values.ndim == 4 and values.shape[1] == len(keep)
        return values * keep.to(values).view(-1, *([1, 1] if first else []))

    return hook


def _verdict(one: LeftOut, names: Sequence[str], share: Tensor, seed: int) -> Verdict:
    count = len(one.layers)
    if count < _FEWEST:
        return Verdict(one.way, "not tested", _SAY["too few"](layers=count, way=one.way))
    places = torch.tensor([names.index(name) for name in one.layers])
    own = share[:, places]
    per_image = rank_correlation(own, one.cost).tolist()
    known = [value for value in per_image if not math.isnan(value)]
    if not known:
        return Verdict(one.way, "not tested", _SAY["too few"](layers=0, way=one.way))
    evidence = decided(known, least=PREDICTS)
    depth = rank_correlation(-places.double().expand_as(one.cost), one.cost).tolist()
    a, b = own.mean(0).numpy(), one.cost.mean(0).numpy()
    rho = spearman(a, b) or 0.0
    p = permuted_p(
        [abs(rho)], lambda g: [abs(spearman(g.permutation(a), b) or 0.0)], 999, seed
    )  # fmt: skip
    dearest = max(a.argsort()[: count // 2].tolist(), key=lambda i: float(b[i]))
    said = (
        _SAY["predicts" if evidence.within else "does not"](
            way=one.way, layers=count, value=evidence.value, least=PREDICTS
        ),
        _SAY["layers"](rho=rho, p=float(p[0])),
        _SAY["dearest"](layer=one.layers[dearest], cost=float(b[dearest]), share=float(a[dearest])),
        _SAY["depth"](depth=mean_std(v for v in depth if not math.isnan(v))[0]),
    )
    return Verdict(
        one.way, evidence.outcome, said, evidence.value, PREDICTS,
        "rank correlation of score and cost", {"layers": rho, "p": float(p[0]), "per_image": per_image},
        evidence=evidence,
    )  # fmt: skip


def _chart(one: LeftOut, names: Sequence[str], share: Tensor) -> Illustration:
    points = [
        Point(name, float(share[:, names.index(name)].mean()), float(one.cost[:, i].mean()))
        for i, name in enumerate(one.layers)
    ]
    told = (
        f"What it costs to have each layer {one.way}, against its share of the layer score; means over the images. If "
        "a low score meant little loss, the points would rise to the right."
    )
    return Illustration.chart(
        scatter, one.way, f"Score and cost, {one.way}", told, points, x_label="share of the layer score",
        y_label="log-probability lost",
    )  # fmt: skip
