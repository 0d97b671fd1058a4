"""Explanations of vision transformers through their attention: attention rollout and LeGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from camlucida.common.errors import LayerError, MethodError
from camlucida.common.limits import Limits
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import Grid, Layers, resolve_all
from camlucida.engine.maps import Steps
from camlucida.engine.tap import run
from camlucida.methods.attention_blocks import AttentionBlock, AttentionMode, attention_blocks
from camlucida.methods.base import Method, RawMap
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task
from camlucida.targets import target_values

Heads = Literal["mean", "max", "min"]
Query = Literal["auto", "class", "mean"]


@dataclass(frozen=True)
class AttentionMethod(Method):
    """Base of the methods that read attention maps; their layers are the blocks of a transformer."""

    explains = "layers"
    steps = Steps(rectify=False)  # shares, and sums of rectified gradients, are never negative

    def default_layers(self, model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
        """All blocks whose tokens form the grid of the last one's."""
        blocks = attention_blocks(model, inputs)
        return tuple(block.name for block in blocks if block.grid == blocks[-1].grid)

    def chosen(
        self, model: nn.Module, layers: Layers, blocks: tuple[AttentionBlock, ...]
    ) -> tuple[int, ...]:
        """Positions of the chosen blocks, in network order.

        Raises:
            LayerError: for a layer that is neither a block nor inside one.
        """
        found = set()
        for name in resolve_all(model, layers):
            inside = [i for i, b in enumerate(blocks) if f"{name}.".startswith(f"{b.name}.")]
            if not inside:
                named = ", ".join(repr(b.name) for b in blocks)
                raise LayerError(
                    f"layer {name!r} is no attention block of the model, which are {named}; leave out layers "
                    "for all of them"
                )
            found.update(inside)
        sizes = {blocks[i].grid for i in found}
        if len(sizes) > 1:
            raise LayerError(
                f"the chosen blocks have token grids of {len(sizes)} kinds; choose blocks of one resolution"
            )
        return tuple(sorted(found))


# ----------------------------------------------------------------------------------------- attention rollout


@register(
    "rollout",
    use="Vision transformers: where attention lets information through, whatever the class.",
    paper="Abnar & Zuidema 2020",
    year=2020,
    equation="1",
    discriminative=False,
    remark="the same map for every class",
    needs=("attention",),
    cost=Cost(forward=2),
    quick_audits=False,
)
@dataclass(frozen=True)
class AttentionRollout(AttentionMethod):
    r"""How much each patch reaches the tokens that are read, if attention alone moved information.

    $\tilde A_l = (\tfrac12 \bar A_l + \tfrac12 I)\, \tilde A_{l-1}$ with $\bar A_l$ the attention weights of
    block $l$, averaged over heads; the map is the row of the tokens that the target is read from.
    ``details["attention"]`` holds that row of each block alone, ``(N, L, h, w)``.

    Attributes:
        heads: ``"mean"`` (default, the paper), ``"max"`` or ``"min"`` over heads; rows sum to 1 again.
        residual: share of the identity, 0.5 by default: what the shortcut carries past the attention.
        query: whose row: ``"auto"`` (default) averages the tokens that the target depends on behind the last
            block, such as the class token, or all where the model averages them; ``"class"`` is the first
            token; ``"mean"`` all of them.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (arXiv 2005.00928),
    section 3: equation 1, with $A = 0.5\, W_{att} + 0.5\, I$ averaged over heads.

    Example:
        >>> camlucida.methods.AttentionRollout(heads="max").describe()["options"]
        {'heads': 'max', 'residual': 0.5, 'query': 'auto'}
    """

    heads: Heads = "mean"
    residual: Annotated[float, Limits(0, 1, open_high=True)] = 0.5
    query: Query = "auto"

    def run(self, task: Task) -> RawMap:
        """One forward pass, and the backward pass of what follows the last block."""
        blocks = attention_blocks(task.model, task.inputs)
        chosen = self.chosen(task.model, task.layers, blocks)
        calls = {blocks[i].call: i for i in chosen}
        attention: dict[int, Tensor] = {}
        last: list[Tensor] = []

        def keep(call: int, weights: Tensor) -> Tensor:
            if call in calls:
                attention[calls[call]] = self.fuse_heads(weights.detach())
            return weights

        def leaf(_: str, tokens: Tensor) -> Tensor:
            last.append(tokens.detach().clone().requires_grad_())
            return last[0].clone()

        with borrowed(task.model, task.inputs) as module:
            x = task.inputs.detach().clone()
            watched = resolve_all(module, blocks[-1].name) if blocks[-1].returns_tokens else {}
            with AttentionMode(len(x), keep):
                outputs = run(module, x, watched, leaf, task.target)
            with torch.autocast(x.device.type, enabled=False):
                pinned = task.target.pin(outputs.detach())
                values = target_values(pinned, outputs, len(x))
            gradient = None
            if last and values.requires_grad:
                (gradient,) = torch.autograd.grad(values.sum(), last[0], allow_unused=True)
        if len(attention) < len(chosen):
            raise MethodError(
                "not every chosen block ran: the target stops the forward pass before it"
            )
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            grid = blocks[chosen[-1]].grid
            flow = self.rollout([attention[i] for i in chosen])
            share = self.read_from(flow, gradient, grid)
            fused = _as_map(torch.einsum("nt,nts->ns", share, flow), grid)
            rows = [torch.einsum("nt,nts->ns", share, attention[i]) for i in chosen]
            details = {"attention": torch.stack([_as_map(row, grid) for row in rows], dim=1)}
        return RawMap(
            layers={blocks[chosen[-1]].name: fused},
            fused=fused,
            outputs=outputs.detach(),
            target=pinned,
            values=values.detach(),
            details=details,
        )

    def fuse_heads(self, weights: Tensor) -> Tensor:
        """``(N, heads, T, T)`` to ``(N, T, T)``, whose rows sum to 1."""
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
        if self.heads == "mean":
            return weights.mean(1)
        fused = weights.amax(1) if self.heads == "max" else weights.amin(1)
        total = fused.sum(-1, keepdim=True)
        return fused / torch.where(total > 0, total, 1)

    def rollout(self, attention: list[Tensor]) -> Tensor:
        """The product ``(N, T, T)`` of the blocks' attention with the shortcut mixed in."""
        eye = torch.eye(
            attention[0].shape[-1], dtype=attention[0].dtype, device=attention[0].device
        )
        flow = eye.expand_as(attention[0])
        for weights in attention:
            flow = ((1 - self.residual) * weights + self.residual * eye) @ flow
        return flow

    def read_from(self, flow: Tensor, gradient: Tensor | None, grid: Grid) -> Tensor:
        """Share of each token in what is read, ``(N, T)``, each image's sum to 1."""
        n, tokens = flow.shape[:2]
        used = torch.zeros(n, tokens, dtype=torch.bool, device=flow.device)
        if self.query == "mean" or (self.query == "auto" and not grid.prefix):
            used[:] = True
        else:
            used[:, 0] = True
        if self.query == "auto" and gradient is not None and gradient.shape[:2] == used.shape:
            depends = gradient.abs().amax(-1) > 0
            used = torch.where(depends.any(1, keepdim=True), depends, used)
        return used.to(flow) / used.sum(1, keepdim=True)


# ----------------------------------------------------------------------------------------------------- LeGrad


@register(
    "legrad",
    use="Vision transformers: which patches attention uses for a class.",
    paper="Bousselham et al. 2025",
    year=2025,
    equation="gradient of each layer's score with respect to its attention",
    needs=("attention", "gradients"),
    cost=Cost(forward=2, backward=1),
    quick_audits=False,
)
@dataclass(frozen=True)
class LeGrad(AttentionMethod):
    r"""How sensitive the score of each block's own tokens is to its attention weights.

    $E_l = \frac{1}{hT} \sum_{h,i} \mathrm{ReLU}(\partial s_l / \partial A^l_{h,i,\cdot})$ at the patch tokens,
    and $L = \sum_l E_l$. The score $s_l$ is the target of what the model makes of the tokens of block $l$ when
    everything behind the last block is applied to them.

    All blocks are scored in one pass: behind the last block their tokens travel side by side as a batch of
    L times N.

    Source: Bousselham, Boggust, Chaybouti, Strobelt and Kuehne, "LeGrad", ICCV 2025 (arXiv 2404.03214), and the
    authors' code (WalBouss/LeGrad) for the means and the ReLU. There the tokens of CLIP's blocks are averaged
    before the head; here they are pooled as the model itself does it. Their code looks at the last two blocks unless
    told otherwise; here it is all of them, and ``layers`` chooses.

    Example:
        >>> camlucida.methods.method_row("legrad").needs
        ('attention', 'gradients')
    """

    def run(self, task: Task) -> RawMap:
        """One forward pass in which no gradient crosses from block to block, and one backward pass."""
        blocks = attention_blocks(task.model, task.inputs)
        chosen = self.chosen(task.model, task.layers, blocks)
        if task.target.layer is not None:
            raise MethodError(
                "legrad puts the tokens of every block through the model's head, so a target inside the model "
                "has no place; use gradcam"
            )
        if not blocks[-1].returns_tokens or not all(blocks[i].returns_tokens for i in chosen):
            raise MethodError(
                "legrad needs blocks that return tokens (N, T, D), which this model's do not; use gradcam or "
                "rollout"
            )
        scored = (*chosen, *(() if len(blocks) - 1 in chosen else (len(blocks) - 1,)))
        number = {blocks[i].name: i for i in scored}
        calls = {blocks[i].call: i for i in chosen}
        attention: dict[int, Tensor] = {}
        tokens: dict[int, Tensor] = {}

        def differentiate(call: int, weights: Tensor) -> Tensor:
            if call not in calls:
                return weights
            leaf = attention[calls[call]] = weights.detach().requires_grad_()
            return leaf.clone()

        def separate(name: str, output: Tensor) -> Tensor:
            tokens[number[name]] = output
            if number[name] == len(blocks) - 1:
                return torch.cat([tokens[i] for i in scored])
            return output.detach()

        with borrowed(task.model, task.inputs) as module:
            x = task.inputs.detach().clone()
            try:
                with AttentionMode(len(x), differentiate):
                    stacked = run(module, x, resolve_all(module, list(number)), separate)
            except RuntimeError as error:
                if len(tokens) < len(scored) or isinstance(error, torch.OutOfMemoryError):
                    raise
                raise MethodError(
                    f"behind its last block the model cannot take {len(scored)} x {len(x)} images' tokens, so "
                    f"they cannot be scored block by block ({error}); use gradcam or rollout"
                ) from error
            if stacked.shape[0] != len(scored) * len(x):
                raise MethodError(
                    f"behind its last block the model makes {stacked.shape[0]} outputs of "
                    f"{len(scored)} x {len(x)} images' tokens, so they cannot be scored block by block"
                )
            outputs = dict(zip(scored, torch.split(stacked, len(x)), strict=True))
            final = outputs[len(blocks) - 1]
            with torch.autocast(x.device.type, enabled=False):
                pinned = task.target.pin(final.detach())
                scores = {i: target_values(pinned, one, len(x)) for i, one in outputs.items()}
                total = torch.stack([scores[i].sum() for i in chosen]).sum()
                leaves = [attention[i] for i in chosen]
                gradients: tuple[Tensor | None, ...] = (None,) * len(leaves)
                if total.requires_grad:
                    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
        maps, connected = {}, {}
        with torch.no_grad():
            for i, leaf, gradient in zip(chosen, leaves, gradients, strict=True):
                found = torch.zeros_like(leaf) if gradient is None else gradient
                found = found.to(torch.promote_types(found.dtype, torch.float32))
                connected[blocks[i].name] = gradient is not None
                maps[blocks[i].name] = _as_map(found.clamp_min(0).mean((1, 2)), blocks[i].grid)
            fused = torch.stack(list(maps.values())).sum(0)
        return RawMap(
            layers=maps,
            fused=fused,
            outputs=final.detach(),
            target=pinned,
            values=scores[len(blocks) - 1].detach(),
            connected=connected,
            details={"scores": torch.stack([scores[i].detach() for i in chosen], dim=1)},
        )


def _as_map(row: Tensor, grid: Grid) -> Tensor:
    """A value for each token, ``(N, T)``, as a map ``(N, h, w)``."""
    return grid.to_map(row[:, :, None])[:, 0]
