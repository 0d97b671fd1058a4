"""A face embedder: a network with everything that belongs to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from camlucida.common.errors import ModelError, TargetError
from camlucida.data.images import read_image
from camlucida.engine.borrow import borrowed, check_inputs
from camlucida.engine.outputs import first_tensor
from camlucida.faces.align import TEMPLATES, Crop
from camlucida.models.loaded import LoadedModel
from camlucida.targets import CosineSimilarity, NegativeDistance
from camlucida.targets.base import Target

Compare: TypeAlias = Literal["cosine", "distance"]
Crops: TypeAlias = (
    "Tensor | Sequence[Crop | Image.Image | str | os.PathLike[str] | np.ndarray[Any, Any]] | Crop"
)


class Centred(nn.Module):
    """A network whose embeddings have a fixed vector taken off: ``phi(x) - centre``, ``(N, D)``.

    Cosines between embeddings that all point one way say little; about their mean they say much.

    Attributes:
        net: the network.
        centre: ``(D,)``, a buffer.
    """

    embeds = True
    centre: Tensor

    def __init__(self, net: nn.Module, centre: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("centre", centre.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Inputs of the network to centred embeddings ``(N, D)``."""
        out: Tensor = self.net(x) - self.centre
        return out


@dataclass(frozen=True, eq=False, repr=False)
class Embedder(LoadedModel):
    """A network that turns aligned faces into embeddings, and how they are made and compared.

    It is a :class:`camlucida.LoadedModel`, so that ``camlucida.explain(embedder, crop, target=...)`` works;
    the target comes from :meth:`target`.

    Attributes:
        module: normalised crops ``(N, C, H, W)`` to embeddings ``(N, D)``; centred already where ``centre``
            says so.
        name: where it comes from, such as ``"dlib"``.
        preprocess: how an aligned crop becomes its input: size, colour order, mean and std.
        align: what faces are aligned to, one of ``camlucida.faces.align.TEMPLATES``.
        compare: the similarity of two embeddings: their ``"cosine"``, or the negative Euclidean ``"distance"``.
        centre: the vector ``(D,)`` that ``module`` takes off its embeddings; ``None`` for none.
        threshold: pairs with at least this similarity are taken for one person; ``None`` where not known.
        layer: the feature map that activation maps are made from; ``None`` for the last one.

    Example:
        >>> small = camlucida.Preprocess(size=(16, 16), resize=(16, 16), crop=False)
        >>> pixels = camlucida.faces.Embedder(torch.nn.Flatten(), "pixels", small, threshold=0.9)
        >>> embeddings = pixels.embed([photo, photo])
        >>> pixels.same(pixels.similarity(*embeddings)).item()
        True
    """

    class_names: tuple[str, ...] | None = None
    align: str = "arcface-112"
    compare: Compare = "cosine"
    centre: Tensor | None = None
    threshold: float | None = None
    layer: str | None = None

    embeds = True

    def __post_init__(self) -> None:
        """Check what was given."""
        if not isinstance(self.module, nn.Module):
            raise ModelError(
                f"an Embedder wraps a torch.nn.Module, got {type(self.module).__name__}"
            )
        if self.preprocess is None:
            raise ModelError(
                "an Embedder needs the preprocess that turns an aligned crop into its input"
            )
        if self.compare not in {"cosine", "distance"}:
            raise ModelError(f"compare must be 'cosine' or 'distance', got {self.compare!r}")
        if self.align not in TEMPLATES:
            raise ModelError(f"align must be one of {', '.join(TEMPLATES)}, got {self.align!r}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        assert self.preprocess is not None  # noqa: S101
        return self.preprocess.size

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        found = next(iter(self.module.parameters()), None)
        return torch.device("cpu") if found is None else found.device

    # ---- from faces to embeddings ---------------------------------------------------------------

    def inputs(self, crops: Crops) -> Tensor:
        """Aligned faces as the network receives them.

        Args:
            crops: crops, pictures or paths; or a tensor ``(N, C, H, W)`` or ``(C, H, W)`` that is ready,
                which is passed on as it is.

        Returns:
            ``(N, C, H, W)``, on the network's device.

        Raises:
            ModelError: a tensor of another shape, or nothing at all.
            ImageError: a picture cannot be read.
        """
        if isinstance(crops, Tensor):
            ready = crops[None] if crops.ndim == 3 else crops
            if ready.ndim != 4 or not len(ready) or tuple(ready.shape[-2:]) != self.size:
                raise ModelError(
                    f"{self.name} takes crops (N, {len(self._preprocess.mean)}, {self.size[0]}, "
                    f"{self.size[1]}), got "
                    f"{tuple(crops.shape)}"
                )
            return ready.to(self.device)
        several = crops if isinstance(crops, Sequence) and not isinstance(crops, str) else [crops]
        if not several:
            raise ModelError("no face was given")
        pictures = [c.image if isinstance(c, Crop) else read_image(c) for c in several]
        made = torch.stack([self._preprocess(p) for p in pictures])
        parameter = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        return made if parameter is None else made.to(parameter.device, parameter.dtype)

    def embed(self, crops: Crops, *, batch_size: int = 64) -> Tensor:
        """The embeddings of aligned faces.

        Args:
            crops: the crops, as for :meth:`inputs`.
            batch_size: faces that pass the network at a time.

        Returns:
            ``(N, D)`` on the network's device, without a graph.

        Raises:
            ModelError: the network's output is not ``(N, D)``.
        """
        inputs = self.inputs(crops)
        found = []
        with borrowed(self.module, inputs) as module, torch.no_grad():
            check_inputs(module, inputs)
            for part in torch.split(inputs, batch_size):
                out = first_tensor(module(part))
                if out.ndim != 2 or len(out) != len(part):
                    raise ModelError(
                        f"{self.name} returned {tuple(out.shape)} for {len(part)} faces; expected "
                        "embeddings (N, D)"
                    )
                found.append(out)
        return torch.cat(found)

    @property
    def _preprocess(self) -> Any:
        return self.preprocess

    # ---- from embeddings to decisions -----------------------------------------------------------

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """How alike embeddings are, pair by pair; higher is more alike.

        Args:
            a: ``(N, D)`` or ``(D,)``.
            b: the same; one of them may be a single one for all.

        Returns:
            ``(N,)``: cosines in [-1, 1], or negative Euclidean distances, at most 0.
        """
        a, b = (x[None] if x.ndim == 1 else x for x in (a, b))
        count = max(len(a), len(b))
        a, b = a.expand(count, -1), b.expand(count, -1)
        if self.compare == "cosine":
            return CosineSimilarity(b)(a)
        return NegativeDistance(b, squared=False)(a)

    def target(
        self,
        reference: Tensor,
        *,
        compare: Compare | None = None,
        detach_norms: bool = False,
        squared: bool = True,
    ) -> Target:
        """What is explained: the similarity of an image with a reference.

        Args:
            reference: the other side's embedding, ``(D,)`` for all images or ``(N, D)``; kept constant. As
                :meth:`embed` returns it: centred where the network is.
            compare: ``"cosine"`` or ``"distance"``; by default as this embedder compares.
            detach_norms: for the cosine, hold the norm of the image's embedding constant, as class
                activation maps of faces do.
            squared: for the distance, use its square (default), which has a gradient everywhere.
        """
        kind = compare or self.compare
        if kind == "cosine":
            return CosineSimilarity(reference.detach(), detach_norms=detach_norms)
        if detach_norms:
            raise TargetError("detach_norms belongs to the cosine; a distance divides by no norm")
        return NegativeDistance(reference.detach(), squared=squared)

    def check_target(self, target: object) -> None:
        """Refuse to explain nothing in particular.

        Raises:
            TargetError: ``target`` is ``None``: an embedder has no classes.
        """
        if target is None:
            raise TargetError(
                f"{self.name} is an embedder: it has no classes, so say what is explained, such as "
                "target=embedder.target(embedder.embed([other])[0])"
            )

    def same(self, similarity: Tensor) -> Tensor:
        """Whether pairs of these similarities are taken for one person, ``(N,)`` of bool.

        Raises:
            ModelError: no threshold is known.
        """
        if self.threshold is None:
            raise ModelError(
                f"no threshold is known for {self.name}; give one, or find it on labelled pairs (EER)"
            )
        return similarity >= self.threshold


def centred(embedder: Embedder, centre: Tensor | Sequence[float]) -> Embedder:
    """The same embedder with a fixed vector taken off its embeddings, compared by cosine.

    Args:
        embedder: not yet centred.
        centre: ``(D,)``, such as the mean embedding of many people.

    Raises:
        ModelError: it is centred already, or the vector is not ``(D,)``.

    Example:
        >>> about_grey = camlucida.faces.centred(embedder, torch.zeros(3 * 16 * 16))
        >>> about_grey.compare
        'cosine'
    """
    from dataclasses import replace

    vector = torch.as_tensor(centre, dtype=torch.float32)
    if embedder.centre is not None:
        raise ModelError(f"{embedder.name} is centred already")
    if vector.ndim != 1 or not vector.isfinite().all():
        raise ModelError(f"a centre is one finite vector (D,), got the shape {tuple(vector.shape)}")
    layer = embedder.layer
    return replace(
        embedder,
        module=Centred(embedder.module, vector).to(embedder.device).eval(),
        centre=vector,
        compare="cosine",
        threshold=None,
        layer=None if layer is None else f"net.{layer}",
    )
