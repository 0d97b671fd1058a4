"""Explanations of vision transformers through their attention: attention rollout and LeGrad.

Attention maps are seen as the model computes them: calls of ``scaled_dot_product_attention``, of
``nn.MultiheadAttention`` and of ``softmax`` are watched while the model runs, so that fused attention
is no obstacle and no module is edited.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Unpack
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from camlucida.borrow import borrowed, check_inputs, unwrap
from camlucida.errors import LayerError, MethodError
from camlucida.layers import Grid, Layers, find_grid, resolve_all, single_tensor
from camlucida.maps import Steps
from camlucida.methods.base import Context, Method, RawMap
from camlucida.methods.registry import register
from camlucida.tap import run
from camlucida.targets import Target, evaluate

Heads = Literal["mean", "max", "min"]
Query = Literal["auto", "class", "mean"]


# --------------------------------------------------------------------------------- watching the attention


class AttentionMode(TorchFunctionMode):
    """Sees the attention weights ``(N, heads, T, T)`` of every self-attention over the whole image.

    Args:
        images: N; windowed attention, whose batch is larger, is not seen.
        edit: called with the number of the attention and its weights; what it returns is used instead.

    Attributes:
        windows: whether attention within windows, which are folded into the batch, was met.
    """

    def __init__(self, images: int, edit: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self.images = images
        self.edit = edit
        self.calls = 0
        self.windows = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Functions called in here are not watched again."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            return self._attention(func, args, kwargs)
        if name == "multi_head_attention_forward":
            return self._multi_head(func, args, kwargs)
        output = func(*args, **kwargs)
        if name == "softmax" and isinstance(output, Tensor) and self._is_attention(output.shape):
            return self._seen(output)
        return output

    def _is_attention(self, shape: torch.Size) -> bool:
        if len(shape) != 4 or shape[2] != shape[3] or shape[2] == 1:
            return False
        self.windows = self.windows or (shape[0] > self.images and shape[0] % self.images == 0)
        return shape[0] == self.images

    def _seen(self, weights: Tensor) -> Tensor:
        self.calls += 1
        return self.edit(self.calls - 1, weights)

    def _attention(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        given = dict(
            zip(
                ("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False
            )
        )
        given |= kwargs
        query, key, value = (given[name] for name in ("query", "key", "value"))
        shape = torch.Size((*query.shape[:-1], key.shape[-2]))
        if not self._is_attention(shape):
            return func(*args, **kwargs)
        if given.get("enable_gqa"):
            groups = query.shape[1] // key.shape[1]
            key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
        scale = given.get("scale") or query.shape[-1] ** -0.5
        scores = (query * scale) @ key.transpose(-2, -1)
        mask = given.get("attn_mask")
        if given.get("is_causal"):
            mask = torch.ones(shape[2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            scores = (
                scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
            )
        return self._seen(scores.softmax(-1)) @ value

    def _multi_head(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``nn.MultiheadAttention`` without masks and the like, which is what image models use."""
        given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
        given.apply_defaults()
        a = given.arguments
        query = a["query"]
        unusual = [a[name] is not None for name in ("bias_k", "bias_v", "key_padding_mask", "attn_mask",
                                                    "static_k", "static_v")]  # fmt: skip
        if (
            query.ndim != 3
            or any(unusual)
            or a["add_zero_attn"]
            or a["use_separate_proj_weight"]
            or a["key"] is not query
            or a["value"] is not query
        ):
            return func(*args, **kwargs)
        tokens, images, width = query.shape
        heads = a["num_heads"]
        if not self._is_attention(torch.Size((images, heads, tokens, tokens))):
            return func(*args, **kwargs)
        projected = F.linear(query, a["in_proj_weight"], a["in_proj_bias"])
        q, k, v = projected.view(tokens, images, 3, heads, width // heads).permute(2, 1, 3, 0, 4)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        weights = self._seen(scores.softmax(-1))
        mixed = (weights @ v).permute(2, 0, 1, 3).reshape(tokens, images, width)
        output = F.linear(mixed, a["out_proj_weight"], a["out_proj_bias"])
        if not a["need_weights"]:
            return output, None
        return output, weights.mean(1) if a["average_attn_weights"] else weights


@dataclass(frozen=True)
class AttentionBlock:
    """A self-attention over the image's tokens, and the block around it.

    Attributes:
        name: the block: the outermost module with this attention only that turns tokens into tokens.
        attention: the innermost module around the attention.
        returns_tokens: whether the block returns tokens ``(N, T, D)``.
        grid: how its tokens are read as a map.
    """

    name: str
    attention: str
    returns_tokens: bool
    grid: Grid


def attention_blocks(model: nn.Module, inputs: Tensor) -> tuple[AttentionBlock, ...]:
    """The self-attention blocks of a vision transformer, in the order in which they run.

    Args:
        model: the model, wrapped or not; returned as it was. What is found is remembered while it lives.
        inputs: ``(N, C, H, W)``; one image is enough.

    Raises:
        MethodError: when no attention runs over the tokens of the whole image.
    """
    module, shape = unwrap(model), tuple(inputs.shape[1:])
    known = _KNOWN.setdefault(module, {})
    names = {name for name, _ in module.named_modules()}
    if shape not in known or not names.issuperset(b.name for b in known[shape]):
        known[shape] = _find_blocks(module, inputs)
    return known[shape]


_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], tuple[AttentionBlock, ...]]] = (
    WeakKeyDictionary()
)


def _find_blocks(model: nn.Module, inputs: Tensor) -> tuple[AttentionBlock, ...]:
    with borrowed(model, inputs) as module, torch.no_grad():
        check_inputs(module, inputs)
        watched = _Calls(module)
        mode = AttentionMode(1, watched.seen)
        with watched, mode:
            module(inputs[:1].clone())
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    inside = [name for stack, _ in watched.attentions for name in stack]
    found = []
    for stack, tokens in watched.attentions:
        try:
            grid = find_grid(torch.empty(1, tokens, 2), size)
        except LayerError:
            continue
        own = [n for n in stack if inside.count(n) == 1 and watched.kept.get(n) == (1, tokens)]
        found.append(AttentionBlock(own[0] if own else stack[-1], stack[-1], bool(own), grid))
    if not found or mode.windows:
        raise MethodError(
            f"{type(unwrap(model)).__name__} has no self-attention over the tokens of the whole image, so "
            "there are no attention maps to read; windowed attention (Swin) is none. gradcam works on any layer"
        )
    return tuple(found)


class _Calls:
    """The modules around each attention, and the sizes of what others return in the shape of their input."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.stack: list[str] = []
        self.attentions: list[tuple[tuple[str, ...], int]] = []
        self.kept: dict[str, torch.Size] = {}

    def seen(self, _: int, weights: Tensor) -> Tensor:
        self.attentions.append((tuple(self.stack), weights.shape[-1]))
        return weights

    def __enter__(self) -> None:
        self.handles: list[RemovableHandle] = []
        for name, module in self.model.named_modules():
            if name:
                self._watch(name, module)

    def _watch(self, name: str, module: nn.Module) -> None:
        def enter(_: nn.Module, __: Any) -> None:
            self.stack.append(name)

        def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.stack.pop()
            tensor = single_tensor(output)
            given = args[0] if args and isinstance(args[0], Tensor) else None
            if tensor is None or given is None:
                return
            if tensor.shape == given.shape:
                self.kept[name] = tensor.shape[:-1]

        self.handles += [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave),
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


@dataclass(frozen=True)
class AttentionMethod(Method):
    """Base of the methods that read attention maps; their layers are the blocks of a transformer."""

    def default_layers(self, model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
        """All blocks."""
        return tuple(block.name for block in attention_blocks(model, inputs))

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
    paper="Abnar & Zuidema 2020",
    year=2020,
    equation="1, section 3",
    needs="a vision transformer with global attention",
    discriminative=False,
    passes="1 forward, open attention; 1 more to find the blocks",
    remark="the same map for every class",
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

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020.
    """

    heads: Heads = "mean"
    residual: float = 0.5
    query: Query = "auto"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if not 0 <= self.residual < 1:
            raise MethodError(f"residual must lie in [0, 1), got {self.residual}")

    @property
    def steps(self) -> Steps:
        """Scaled; a share is never negative."""
        return Steps(rectify=False)

    def run(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        layers: Layers,
        **context: Unpack[Context],  # noqa: ARG002
    ) -> RawMap:
        """One forward pass, and the backward pass of what follows the last block."""
        blocks = attention_blocks(model, inputs)
        chosen = self.chosen(model, layers, blocks)
        attention: dict[int, Tensor] = {}
        last: list[Tensor] = []

        def keep(call: int, weights: Tensor) -> Tensor:
            if call in chosen:
                attention[call] = self.fuse_heads(weights.detach())
            return weights

        def leaf(_: str, tokens: Tensor) -> Tensor:
            last.append(tokens.detach().clone().requires_grad_())
            return last[0].clone()

        with borrowed(model, inputs) as module:
            x = inputs.detach().clone()
            watched = resolve_all(module, blocks[-1].name) if blocks[-1].returns_tokens else {}
            with AttentionMode(len(x), keep):
                outputs = run(module, x, watched, leaf, target)
            with torch.autocast(x.device.type, enabled=False):
                pinned = target.pin(outputs.detach())
                values = evaluate(pinned, outputs, len(x))
            gradient = None
            if last and values.requires_grad:
                (gradient,) = torch.autograd.grad(values.sum(), last[0], allow_unused=True)
        if len(attention) < len(chosen):
            raise MethodError(
                "not every chosen block ran: the target stops the forward pass before it"
            )
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            grid = blocks[chosen[-1]].grid
            flow = self.rollout([attention[call] for call in chosen])
            share = self.read_from(flow, gradient, grid)
            fused = _as_map(torch.einsum("nt,nts->ns", share, flow), grid)
            rows = [torch.einsum("nt,nts->ns", share, attention[call]) for call in chosen]
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
    paper="Bousselham et al. 2025",
    year=2025,
    equation="gradient of each layer's score with respect to its attention",
    needs="a vision transformer with global attention, gradients",
    passes="1 forward + 1 backward, open attention; 1 forward more to find the blocks",
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
    before the head; here they are pooled as the model itself does it.
    """

    @property
    def steps(self) -> Steps:
        """Rectified before the heads are averaged."""
        return Steps(rectify=False)

    def run(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        layers: Layers,
        **context: Unpack[Context],  # noqa: ARG002
    ) -> RawMap:
        """One forward pass in which no gradient crosses from block to block, and one backward pass."""
        blocks = attention_blocks(model, inputs)
        chosen = self.chosen(model, layers, blocks)
        if target.layer is not None:
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
        attention: dict[int, Tensor] = {}
        tokens: dict[int, Tensor] = {}

        def differentiate(call: int, weights: Tensor) -> Tensor:
            if call not in chosen:
                return weights
            attention[call] = weights.detach().requires_grad_()
            return attention[call].clone()

        def separate(name: str, output: Tensor) -> Tensor:
            tokens[number[name]] = output
            if number[name] == len(blocks) - 1:
                return torch.cat([tokens[i] for i in scored])
            return output.detach()

        with borrowed(model, inputs) as module:
            x = inputs.detach().clone()
            with AttentionMode(len(x), differentiate):
                stacked = run(module, x, resolve_all(module, list(number)), separate)
            if stacked.shape[0] != len(scored) * len(x):
                raise MethodError(
                    f"behind its last block the model makes {stacked.shape[0]} outputs of "
                    f"{len(scored)} x {len(x)} images' tokens, so they cannot be scored block by block"
                )
            outputs = dict(zip(scored, torch.split(stacked, len(x)), strict=True))
            final = outputs[len(blocks) - 1]
            with torch.autocast(x.device.type, enabled=False):
                pinned = target.pin(final.detach())
                scores = {i: evaluate(pinned, one, len(x)) for i, one in outputs.items()}
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
