"""What each layer of a model returns, and by what evidence it is read as a map.

Nothing is read as a map because its shape would allow it. There are three kinds of evidence:

* the *operations* that made it, followed from the image on (:mod:`camlucida.engine.layers.axes`);
* what the layer *does*: changing a quarter of the image changes the matching quarter of the map
  (:mod:`camlucida.engine.layers.probe`), asked where the operations do not tell;
* what the model *declares* of its tokens, unless what they do speaks against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from camlucida.common.arguments import Code, argument
from camlucida.common.errors import LayerError
from camlucida.common.turns import here, watchable
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.chunks import out_of_memory
from camlucida.engine.layers.again import FirstRun
from camlucida.engine.layers.axes import FollowAxes
from camlucida.engine.layers.grids import (
    Grid,
    map_shape,
    possible_grids,
    read_axes,
    single_tensor,
    token_axes,
)
from camlucida.engine.layers.names import INPUT
from camlucida.engine.layers.parts import Axes
from camlucida.engine.layers.probe import Found, Response, agreement, find, probe_images, response

EvidenceKind: TypeAlias = Literal["operations", "probe", "declared"]
_SUPPORTS = 0.4  # of the cells, where the model itself declares the grid


@dataclass(frozen=True)
class Evidence:
    """Why a layer's output is read as it is.

    Attributes:
        kind: ``"operations"``: rows and columns were followed from the image; ``"probe"``: changing a quarter of
            the image changes the matching quarter of the map; ``"declared"``: the model says the grid of its
            tokens.
        agreement: share of the cells that change most with their own quarter, where it was measured.
    """

    kind: EvidenceKind
    agreement: float | None = None

    def __str__(self) -> str:
        """As the listings show it."""
        measured = "" if self.agreement is None else f", {self.agreement:.0%} of the cells in place"
        return {
            "operations": "followed through the operations",
            "probe": "quarters of the image",
            "declared": "declared by the model",
        }[self.kind] + measured


@dataclass(frozen=True)
class Reading:
    """How a layer's output is read as a map, or why it is not.

    Attributes:
        shape: of the output for one image, ``None`` where the layer returns no single tensor.
        calls: how often the layer ran, runs on the same input counted once.
        grid: the reading.
        evidence: why it is read so.
        reason: why it is no map, in words that follow "because".
    """

    shape: tuple[int, ...] | None
    calls: int
    grid: Grid | None = None
    evidence: Evidence | None = None
    reason: str = ""


class Survey:
    """Readings of all layers of a model for inputs of one shape.

    Args:
        module: the model, borrowed.
        inputs: ``(N, C, H, W)``; only their shape, type and range are used.
    """

    failure: Exception | None
    """Why the model did not run to its end."""

    def __init__(self, module: nn.Module, inputs: Tensor) -> None:
        self.size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        self.attention: set[str] = set()
        """Modules in which positions look at positions."""
        self._seen: dict[str, _Seen] = {}
        self.images = 1
        """How many images at a time the model takes: one, or as many as are explained."""
        self._declared = _declared(module)
        self._probed: tuple[Any, dict[str, _Probed]] | None = None
        image = probe_images(inputs)[:1]
        self.failure = self._trace(module, image)
        if self.failure is not None and len(inputs) > 1:
            # A model for batches of one size, perhaps.
            seen, failure = self._seen, self.failure
            self.failure = self._trace(module, image.expand(len(inputs), -1, -1, -1))
            if self.failure is None:
                self.images = len(inputs)
            else:
                self._seen, self.failure = seen, failure

    def _trace(self, module: nn.Module, image: Tensor) -> Exception | None:
        """Follow the operations of one pass; the exception where the model does not run to its end."""
        stack: list[str] = []
        count = len(image)
        self._seen = {}
        given: dict[str, tuple[Any, ...]] = {}
        first: dict[str, FirstRun] = {}
        runs: dict[str, int] = {}
        follow = FollowAxes(lambda: self.attention.update(stack[-1:]))

        def enter(name: str, args: tuple[Any, ...]) -> None:
            stack.append(name)
            given[name] = args

        def leave(name: str, output: Any) -> None:
            stack.pop()
            tensor = single_tensor(output)
            if name in first and first[name].is_same(given[name], tensor):
                return
            first.setdefault(name, FirstRun(given[name], tensor))
            calls = runs[name] = runs.get(name, 0) + 1
            if tensor is None:
                self._seen[name] = _Seen(None, calls, "it returns no single tensor")
                return
            shape = tuple(tensor.shape)
            axes = follow.of(tensor)
            outcome = _outcome(tensor, axes, count)
            tokens = {} if axes is None else token_axes(axes, shape)
            self._seen[name] = _Seen((1, *shape[1:]), calls, outcome, tokens)

        with watching(module, leave, enter):
            watched = image.clone()
            try:
                with follow:
                    follow.start(watched)
                    module(watched)
            except Exception:
                stack.clear()
                seen, self._seen = self._seen, {}
                try:
                    # What does not run while it is followed may run otherwise; then nothing is known of the axes.
                    module(image.clone())
                    self.attention.clear()
                except Exception as error:
                    if out_of_memory(error):
                        raise
                    # Up to there all is known.
                    self._seen = seen
                    return error
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """Layers that ran, in the order in which they first ended."""
        if self.failure is not None:
            raise self.failure
        return tuple(self._seen)

    def reading(self, module: nn.Module, inputs: Tensor, name: str) -> Reading:
        """How a layer is read; one more pass of nine small images where the operations do not tell."""
        seen = self._seen.get(name)
        if seen is None:
            if self.failure is not None:
                raise self.failure
            return Reading(None, 0, reason="it does not run")
        if isinstance(seen.outcome, str):
            return Reading(seen.shape, seen.calls, reason=seen.outcome)
        if seen.outcome is not None:
            return Reading(seen.shape, seen.calls, seen.outcome, Evidence("operations"))
        plain = Reading(seen.shape, seen.calls)
        if not seen.plausible(self.size):
            height, width = self.size
            return replace(
                plain,
                reason=f"its shape {_sizes(seen.shape)} is no spatial map (N, K, h, w), (N, h, w, K) or token grid "
                f"(N, T, K) of a {height}x{width} image",
            )
        probed = self.probe(module, inputs).get(name)
        if probed is None:
            return replace(plain, reason="its output could not be observed for several images")
        return replace(plain, **_weigh(probed, seen.shape))

    def token_grid(self, name: str, tokens: int) -> Grid | None:
        """How so many tokens along any axis of a layer's output lie on the image, as the operations tell."""
        seen = self._seen.get(name)
        if seen is None or seen.shape is None:
            return None
        if isinstance(seen.outcome, Grid) and seen.outcome.size is None:
            _, rows, columns = map_shape(seen.outcome, seen.shape)
            return Grid("tokens", 0, (rows, columns)) if rows * columns == tokens else None
        return seen.tokens.get(tokens)

    def probe(self, module: nn.Module, inputs: Tensor) -> dict[str, _Probed]:
        """What every layer did when quarters of the image were changed; remembered while the weights stay."""
        weights = weights_of(module)
        if self._probed is None or self._probed[0] != weights:
            self._probed = (weights, self._observe(module, inputs))
        return self._probed[1]

    def _observe(self, module: nn.Module, inputs: Tensor) -> dict[str, _Probed]:
        images = probe_images(inputs)
        outputs: dict[str, list[Tensor]] = {}

        def leave(name: str, output: Any) -> None:
            tensor = single_tensor(output)
            if tensor is not None and self._asked(name):
                outputs.setdefault(name, []).append(tensor.detach().clone())

        with watching(module, leave):
            try:
                module(images.clone())
            except torch.OutOfMemoryError:
                raise
            except Exception:  # a model for one image at a time
                outputs.clear()
                for image in images:
                    module(image.expand(self.images, -1, -1, -1).clone())
        found = {}
        for name, runs in outputs.items():
            parts = [part[:1] for part in runs] if len(runs) == len(images) else runs
            together = torch.cat(parts) if len({p.shape[1:] for p in parts}) == 1 else parts[0]
            if together.shape[:1] == images.shape[:1]:
                found[name] = _Probed.of(response(together), self.size, self._declared)
        return found

    def _asked(self, name: str) -> bool:
        seen = self._seen.get(name)
        return seen is not None and seen.calls == 1 and seen.outcome is None


@dataclass(frozen=True)
class _Seen:
    """A layer in the pass that followed the operations; ``outcome`` is a grid, a reason, or not known."""

    shape: tuple[int, ...] | None
    calls: int
    outcome: Grid | str | None
    tokens: dict[int, Grid] = field(default_factory=dict)

    def plausible(self, size: tuple[int, int]) -> bool:
        """Whether some reading is possible at all."""
        return self.shape is not None and next(possible_grids(self.shape, size), None) is not None


@dataclass(frozen=True)
class _Probed:
    """What a layer did: the best reading, and how far the declared one agrees."""

    found: Found
    declared: tuple[Grid, float] | None

    @classmethod
    def of(cls, changes: Response, size: tuple[int, int], declared: list[Grid]) -> _Probed:
        said = None
        for grid in declared:
            if grid.fits(changes.shape) and grid.tokens == changes.shape[1]:
                measured = agreement(changes, grid)
                said = (grid, 0.0 if measured is None else measured.share)
        return cls(find(changes, size), said)


def _weigh(probed: _Probed, shape: tuple[int, ...] | None) -> dict[str, Any]:
    """Grid and evidence, or the reason why there is none."""
    found, declared = probed.found, probed.declared
    if declared is not None:
        grid, share = declared
        if found.clear and found.grid != grid and found.agreement is not None:
            return {
                "reason": f"the model declares {grid}, but when quarters of the image change it acts as {found.grid}"
            }
        if share >= _SUPPORTS:
            return {"grid": grid, "evidence": Evidence("declared", share)}
    if found.clear and found.agreement is not None:
        return {"grid": found.grid, "evidence": Evidence("probe", found.agreement.share)}
    if found.grid is None or found.agreement is None:
        return {
            "reason": f"its output {_sizes(shape)} does not change when quarters of the image do"
        }
    return {
        "reason": f"its shape {_sizes(shape)} could be read as {found.grid}, but when a quarter of the image changes, "
        f"{found.doubt}"
    }


def _sizes(shape: tuple[int, ...] | None) -> str:
    return "(N, " + ", ".join(map(str, (shape or (0, 0))[1:])) + ")"


def _declared(module: nn.Module) -> list[Grid]:
    """Token grids that models of timm and transformers say they have."""
    found: dict[Grid, None] = {}
    for child in module.modules():
        size = getattr(getattr(child, "patch_embed", None), "grid_size", None)
        prefix = getattr(child, "num_prefix_tokens", 0)
        config = getattr(child, "config", None)
        if size is None and config is not None:
            image, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
            if isinstance(image, int) and isinstance(patch, int) and 0 < patch <= image:
                size = (image // patch, image // patch)
                prefix = 1 + int(getattr(config, "num_register_tokens", 0) or 0)
        if (
            isinstance(size, tuple | list)
            and len(size) == 2
            and all(isinstance(s, int) and s > 0 for s in size)
        ):
            for front in {prefix, 0} if isinstance(prefix, int) else {0}:
                found[Grid("tokens", front, (size[0], size[1]))] = None
    return list(found)


# ----------------------------------------------------------------------------------------------- remembering


_Key: TypeAlias = tuple[Any, ...]
_SURVEYS: WeakKeyDictionary[nn.Module, dict[_Key, tuple[Any, Survey]]] = WeakKeyDictionary()


def survey(model: nn.Module, inputs: Tensor) -> Survey:
    """What each layer of a model returns for inputs of this shape; one small forward pass, remembered.

    It is made again when modules were exchanged. It keeps neither the model nor any tensor alive.
    """
    module = unwrap(model)
    autocast = torch.is_autocast_enabled(inputs.device.type)
    key = (tuple(inputs.shape[1:]), inputs.dtype, inputs.device, autocast)
    with borrowed(module, inputs):
        known = _SURVEYS.setdefault(module, {})
        structure = structure_of(module)
        if key in known and known[key][0] == structure:
            return known[key][1]
        found = Survey(module, inputs)
        if found.failure is None:  # an exception holds on to all that it went through
            known[key] = (structure, found)
        return found


def structure_of(module: nn.Module) -> Any:
    """What tells whether modules were exchanged."""
    return tuple((name, ref(child)) for name, child in module.named_modules())


def weights_of(module: nn.Module) -> Any:
    """What tells whether weights were exchanged or written to."""
    return (
        structure_of(module),
        tuple((id(p), 0 if p.is_inference() else p._version) for p in module.parameters()),  # noqa: SLF001
    )


def reading(model: nn.Module, inputs: Tensor, name: str) -> Reading:
    """How the output of a layer is read as a map, by what evidence, or why it is not.

    Args:
        model: the model, wrapped or not; returned as it was.
        inputs: ``(N, C, H, W)`` on the model's device; only their shape, type and range are used.
        name: the layer's dotted name, see :func:`~camlucida.engine.layers.names.resolve`.
    """
    module = unwrap(model)
    if name == INPUT:
        return Reading((1, *inputs.shape[1:]), 1, Grid(), Evidence("operations"))
    with borrowed(module, inputs):
        return survey(module, inputs).reading(module, inputs, name)


def grid_of(model: nn.Module, inputs: Tensor, name: str) -> Grid:
    """How the output of a layer is read as a map.

    Raises:
        LayerError: where no evidence supports a reading; it says what was seen and how to name layer and grid.
    """
    return checked(reading(model, inputs, name), name)


def checked(found: Reading, name: str) -> Grid:
    """The grid of a reading, or ``LayerError`` why there is none."""
    if found.grid is None:
        example = argument("grid", Code("camlucida.Grid('tokens', prefix=1, size=(14, 14))"))
        how = f", or say how it is read, such as {example} or a function from its output to (N, K, h, w)"
        places = found.shape is None or len(found.shape) > 2
        raise LayerError(
            f"layer {name!r} is no feature map of the image, because {found.reason}; choose another layer "
            f"(camlucida layers --tree lists those that are){how if places else ''}"
        )
    return found.grid


# -------------------------------------------------------------------------------------------------- watching


def _outcome(tensor: Tensor, axes: Axes | None, count: int) -> Grid | str | None:
    """How a layer's output for so many images is read by its operations, or why it is no map."""
    shape = tuple(tensor.shape)
    outcome = None if axes is None else read_axes(axes, shape)
    if is_functorch_wrapped_tensor(tensor):
        return "it runs inside torch.vmap or torch.func, where single images cannot be told apart"
    if tensor.is_quantized:
        return "it returns quantized values"
    if not tensor.is_floating_point():
        return f"it returns {str(tensor.dtype).removeprefix('torch.')} values"
    if shape[:1] != (count,) and not isinstance(outcome, str):
        return (
            f"its first axis has {shape[0] if shape else 'no'} entries for {count} images, as where windows, "
            "crops or copies of an image are folded into the batch"
        )
    if outcome is None and len(shape) == 4 and 1 in (shape[2] * shape[3], shape[1] * shape[2]):
        # One cell is the whole image.
        return Grid("nchw" if shape[2] * shape[3] == 1 else "nhwc")
    return outcome


@contextmanager
def watching(
    module: nn.Module,
    leave: Callable[[str, Any], Any],
    enter: Callable[[str, Any], None] | None = None,
) -> Iterator[None]:
    """Inside the block, ``leave(name, output)`` is called after each run of a module, ``enter`` before."""
    handles = []
    for name, child in watchable(module):
        if not name:
            continue
        if enter is not None:
            before = here(lambda _, args, name=name: enter(name, args))
            handles.append(child.register_forward_pre_hook(before))
        after = here(lambda _, __, output, name=name: leave(name, output))
        handles.append(child.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
