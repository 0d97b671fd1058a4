"""Which pixels, or cells of a layer, can a model not see? Proved by gradients and by changing them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError, LayerError, ModelError
from camlucida.data.regions import Region
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.layers import INPUT, Layer, grid_of, resolve
from camlucida.engine.tap import run, tap
from camlucida.methods import Progress
from camlucida.models import LoadedModel

_MOST_SPLITS = 200


@dataclass(frozen=True)
class DeadZone:
    """What a model does not see, and why that is certain.

    Attributes:
        mask: boolean ``(H, W)`` of the input, or ``(h, w)`` of the layer; true where nothing is seen.
        layer: the layer whose cells these are; ``"input"`` for pixels.
        proof: how it was proved, ready for JSON: ``images`` that were tried, ``gradients`` taken,
            ``candidates`` with a gradient of exactly zero in all of them, ``changes`` made to all of the zone
            that left every output bit for bit the same, ``refuted`` candidates that a change gave away or
            that were given up, ``control``: whether changing the rest changes the outputs, and ``border``:
            whether changing just the seen neighbours of the zone does.

    Example:
        >>> mask = torch.zeros(4, 4, dtype=torch.bool)
        >>> mask[3] = True
        >>> str(camlucida.audits.DeadZone(mask))
        '4 of 16 pixels are dead (25.0%): rows 3 to 3 of 0 to 3'
    """

    mask: Tensor
    layer: str = INPUT
    proof: dict[str, Any] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether everything is seen."""
        return not bool(self.mask.any())

    @property
    def share(self) -> float:
        """Share of the pixels or cells that are dead, in [0, 1]."""
        return float(self.mask.double().mean())

    @property
    def uniform(self) -> float:
        """The dead-zone activity of a constant map, ``sqrt(share)``."""
        return math.sqrt(self.share)

    @property
    def rows(self) -> tuple[int, int] | None:
        """First and last row, inclusive, where the zone is whole rows in one piece."""
        whole = self.mask.all(1)
        if self.empty or not torch.equal(whole, self.mask.any(1)):
            return None
        found = whole.nonzero().flatten().tolist()
        first, last = found[0], found[-1]
        return (first, last) if last - first + 1 == len(found) else None

    @property
    def region(self) -> Region | None:
        """The zone as whole rows at the lower edge, what STACK-MIX fills; ``None`` where it is something else."""
        if self.rows is None or self.rows[1] != self.mask.shape[0] - 1:
            return None
        return Region.rows(*self.rows)

    def __str__(self) -> str:
        unit = "pixels" if self.layer == INPUT else f"cells of {self.layer}"
        if self.empty and self.proof.get("refuted"):
            return f"no {unit} are proved dead: where the gradient is zero, a change was noticed all the same"
        if self.empty:
            return f"no {unit} are dead: each one can change the output"
        height, width = self.mask.shape
        where = f"{int(self.mask.sum())} of {height * width} {unit} are dead ({self.share:.1%})"
        if self.rows:
            first, last = self.rows
            where += f": rows {first} to {last} of 0 to {height - 1}"
        return where

    def to_dict(self) -> dict[str, Any]:
        """Everything but the mask, ready for JSON."""
        return {
            "layer": self.layer,
            "size": list(self.mask.shape),
            "dead": int(self.mask.sum()),
            "share": self.share,
            "uniform_mu": self.uniform,
            "rows": list(self.rows) if self.rows else None,
            "proof": self.proof,
        }


def dead_zone(
    model: nn.Module | LoadedModel,
    inputs: Tensor | tuple[int, ...],
    layer: Layer = INPUT,
    *,
    draws: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> DeadZone:
    """The pixels of the input, or the cells of a layer, on which the model's output does not depend.

    A candidate is what has a gradient of *exactly* zero for random mixtures of all outputs, on the given
    images and on noise. Then everything in the candidates is changed at once, by noise small and large, by
    constants and by another image's values, and the outputs must stay bit for bit what they were; where they
    do not, the candidates are halved until what gave them away is found, and that is not dead.

    Args:
        model: any model; returned as it was.
        inputs: ``(N, C, H, W)``, ready for the model, a few are enough; or a size ``(H, W)`` or ``(C, H, W)``
            for noise alone.
        layer: a name or module for cells, ``"input"`` (default) for pixels.
        draws: number of gradients and of changes of each kind.
        seed: of the noise.
        progress: called with tests done and their total.

    Raises:
        ModelError: the outputs are not finite, are not the same when nothing is changed, so that bit for bit
            proves nothing, or do not depend on any pixel.
        LayerError: for an unknown layer, or one of which no cell reaches the output.

    Example:
        >>> camlucida.audits.dead_zone(model, images, draws=1).empty
        True
    """
    module = unwrap(model.module if isinstance(model, LoadedModel) else model)
    generator = torch.Generator().manual_seed(seed)
    images = _images(module, inputs, generator)
    probe = _Probe(module, resolve(module, layer)[0])
    report = progress or (lambda _done, _total: None)
    total = 2 * draws + 2
    seen: Tensor | None = None
    noisy = [images, *(_like(images, generator, scale) for scale in (1.0, 3.0))]
    for draw in range(draws):
        for batch in noisy:
            mixed = probe.support(batch, generator)
            seen = mixed if seen is None else seen | mixed
        report(draw + 1, total)
    assert seen is not None  # noqa: S101
    dead = ~seen
    candidates = int(dead.sum())
    base = [probe.outputs(batch) for batch in noisy]
    for batch, outputs in zip(noisy, base, strict=True):
        if not outputs.isfinite().all():
            raise ModelError(
                "the model's outputs are not finite, so nothing can be proved about it"
            )
        if not torch.equal(probe.outputs(batch), outputs):
            raise ModelError(
                "the model gives other outputs for the same images, so that equal outputs prove nothing; "
                "ask torch for deterministic algorithms, or use the CPU"
            )
    changes = list(_changes(draws))

    def unseen(mask: Tensor) -> bool:
        """Whether no change there is noticed."""
        stream = torch.Generator().manual_seed(seed + 1)
        return all(
            torch.equal(probe.outputs(batch, mask, change, stream), outputs)
            for batch, outputs in zip(noisy, base, strict=True)
            for change in changes
        )

    splits = 0
    if candidates and not unseen(dead):
        dead, splits = _refine(dead, unseen)
    if bool(dead.all()):
        raise _nothing_seen(probe.layer)
    report(total - 1, total)
    stream = torch.Generator().manual_seed(seed + 2)
    rest = ~dead
    near = torch.nn.functional.max_pool2d(dead[None, None].float(), 3, 1, 1)[0, 0].bool() & rest

    def noticed(mask: Tensor) -> bool:
        return bool(mask.any()) and not all(
            torch.equal(probe.outputs(batch, mask, "noise", stream), outputs)
            for batch, outputs in zip(noisy, base, strict=True)
        )

    proof = {
        "images": len(images),
        "noise_images": 2 * len(images),
        "gradients": draws * len(noisy),
        "candidates": candidates,
        "changes": len(changes) * len(noisy) if bool(dead.any()) else 0,
        "refuted": candidates - int(dead.sum()),
        "halvings": splits,
        "control": noticed(rest),
        "border": noticed(near) if not bool(near.sum() == 0) else None,
        "outputs": int(base[0].flatten(1).shape[1]),
    }
    if bool(dead.any()) and not proof["control"]:
        raise _nothing_seen(probe.layer)
    report(total, total)
    return DeadZone(dead.cpu(), probe.layer, proof)


class _Probe:
    """A model as a function of its input's pixels or of a layer's cells."""

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.model, self.layer = model, layer
        self.modules: dict[str, nn.Module | None] = {layer: resolve(model, layer)[1]}

    def support(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Where the gradient of a random mixture of the outputs is not exactly zero, ``(h, w)``."""

        def mixture(outputs: Tensor) -> Tensor:
            flat = outputs.flatten(1)
            weights = torch.randn(flat.shape[1], generator=generator, dtype=torch.float64)
            return flat @ weights.to(flat)

        _, gradient = tap(self.model, images, self.layer, mixture).only
        return (gradient != 0).any(1).any(0)

    @torch.no_grad()
    def outputs(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        change: str = "",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The outputs with everything in ``mask`` changed."""
        grid = None if self.layer == INPUT else grid_of(self.model, images, self.layer)

        def edit(_: str, output: Tensor) -> Tensor:
            if mask is None or generator is None:
                return output.clone()
            values = output if grid is None else grid.to_map(output)
            new = _changed(values, change, generator)
            altered = torch.where(mask.to(values.device), new, values)
            return altered if grid is None else grid.to_output(altered, output)

        with borrowed(self.model, images) as module:
            return run(module, images, self.modules, edit)


def _nothing_seen(layer: str) -> CamlucidaError:
    if layer == INPUT:
        return ModelError(
            "the model's outputs do not depend on any pixel (its weights may be zero, or its outputs saturated), so "
            "that nothing can be said about what it sees"
        )
    return LayerError(
        f"no cell of layer {layer!r} reaches the output (the head may read a class token only, or another branch); "
        "choose a layer before it"
    )


def _changes(draws: int) -> Iterator[str]:
    yield from ("noise",) * draws
    yield from ("loud",) * draws
    yield from ("zero", "high", "low", "others")


def _changed(values: Tensor, change: str, generator: torch.Generator) -> Tensor:
    """Other values for a map ``(N, K, h, w)``; ``loud`` is far outside its range."""
    spread = float(values.std()) or 1.0
    if change in {"noise", "loud"}:
        noise = torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values)
        return values + noise * spread * (100 if change == "loud" else 1)
    if change == "zero":
        return torch.zeros_like(values)
    if change == "others":
        return values.roll(1, 0).flip(-1)
    extreme = values.amax() if change == "high" else values.amin()
    return torch.full_like(values, float(extreme) + (spread if change == "high" else -spread))


def _refine(dead: Tensor, unseen: Any) -> tuple[Tensor, int]:
    """The parts of the candidates whose change goes unnoticed, and how many halvings that took."""
    kept = torch.zeros_like(dead)
    waiting = [dead.flatten().nonzero().flatten()]
    splits = 0
    while waiting and splits < _MOST_SPLITS:
        places = waiting.pop()
        if len(places) == 1:
            continue
        splits += 1
        for part in places.tensor_split(2):
            mask = torch.zeros_like(dead)
            mask.view(-1)[part] = True
            if unseen(mask):
                kept |= mask
            else:
                waiting.append(part)
    # Parts that go unnoticed one by one may be noticed together.
    return (kept if bool(kept.any()) and unseen(kept) else torch.zeros_like(dead)), splits


def _images(
    model: nn.Module, inputs: Tensor | tuple[int, ...], generator: torch.Generator
) -> Tensor:
    if isinstance(inputs, Tensor):
        return inputs.detach()
    channels = 3
    if len(inputs) == 3:
        channels, inputs = inputs[0], inputs[1:]
    elif (conv := next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)) is not None:
        channels = conv.in_channels
    if len(inputs) != 2:
        raise ModelError(f"a size is (H, W) or (C, H, W), got {inputs}")
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(1))
    noise = torch.randn(4, channels, *inputs, generator=generator, dtype=torch.float64)
    return noise.to(weight.device, weight.dtype)


def _like(images: Tensor, generator: torch.Generator, scale: float) -> Tensor:
    noise = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    return scale * noise.to(images)
