"""Find the self-attention blocks of a vision transformer, and watch their attention weights.

Attention maps are seen as the model computes them: calls of ``scaled_dot_product_attention``, of
``nn.MultiheadAttention`` and of ``softmax`` are watched while the model runs, so that fused attention
is no obstacle and no module is edited.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from camlucida.common.errors import MethodError
from camlucida.common.turns import here
from camlucida.engine.borrow import borrowed, check_inputs, unwrap
from camlucida.engine.layers import Grid, reading, single_tensor, survey


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
        if name == "softmax" and isinstance(output, Tensor):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            # Over channels, say, it makes no attention weights.
            if dim in (-1, 3) and self._is_attention(output.shape):
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
        call: number of the attention among all that run.
        name: the block: the outermost module with this attention only that turns tokens into tokens.
        attention: the innermost module around the attention.
        returns_tokens: whether the block returns tokens ``(N, T, D)``.
        grid: how its tokens are read as a map.
    """

    call: int
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
    inside = [name for stack, _ in watched.attentions for name in stack]
    found: list[AttentionBlock] = []
    for call, (stack, tokens) in enumerate(watched.attentions):
        # Attention between channels, say, has as many rows as nothing around it has tokens.
        if not any(_carries(watched.returned.get(n), tokens) for n in stack):
            continue
        grid = _token_grid(model, inputs, stack, tokens)
        if grid is None:
            continue
        if any(block.attention == stack[-1] for block in found):
            raise MethodError(
                f"layer {stack[-1]!r} makes attention weights more than once in a forward pass, and it cannot be "
                "told how they belong together; gradcam works on any layer"
            )
        own = [n for n in stack if inside.count(n) == 1 and watched.kept.get(n) == (1, tokens)]
        name = own[0] if own else stack[-1]
        found.append(AttentionBlock(call, name, stack[-1], bool(own), grid))
    if not found or mode.windows:
        raise MethodError(
            f"{type(unwrap(model)).__name__} has no module with self-attention over the tokens of the whole image, "
            "so there are no attention maps to read; windowed attention (Swin) is none. gradcam works on any layer"
        )
    return tuple(found)


def _token_grid(
    model: nn.Module, inputs: Tensor, stack: tuple[str, ...], tokens: int
) -> Grid | None:
    """How the tokens of an attention lie on the image, by the modules around it, the innermost first."""
    found = survey(model, inputs)
    for name in reversed(stack):
        grid = found.token_grid(name, tokens)
        if grid is not None:
            return grid
    for name in reversed(stack):
        grid = reading(model, inputs, name).grid
        if grid is not None and grid.tokens == tokens:
            return grid
    return None


def _carries(shape: torch.Size | None, tokens: int) -> bool:
    """Whether ``(N, T, D)``, ``(T, N, D)``, ``(N, K, h, w)`` or ``(N, h, w, K)`` has so many tokens or cells."""
    if shape is None or len(shape) not in (3, 4):
        return False
    return tokens in (shape[:2] if len(shape) == 3 else (shape[2] * shape[3], shape[1] * shape[2]))


class _Calls:
    """The modules around each attention, what they return, and which return the shape of their input."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.stack: list[str] = []
        self.attentions: list[tuple[tuple[str, ...], int]] = []
        self.returned: dict[str, torch.Size] = {}
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
            if tensor is None:
                return
            self.returned[name] = tensor.shape
            given = args[0] if args and isinstance(args[0], Tensor) else None
            if given is not None and tensor.shape == given.shape:
                self.kept[name] = tensor.shape[:-1]

        self.handles += [
            module.register_forward_pre_hook(here(enter)),
            module.register_forward_hook(here(leave)),
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
