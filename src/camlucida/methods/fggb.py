"""FGGB: the gradient of every dimension of an embedding, weighted by what it adds to the similarity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from camlucida.common.errors import TargetError
from camlucida.common.limits import Count, Kernel, NotNegative
from camlucida.engine.borrow import borrowed, check_inputs
from camlucida.engine.maps import Steps
from camlucida.engine.tap import run
from camlucida.methods.base import Method, RawMap
from camlucida.methods.masking import MaskSpace
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task
from camlucida.targets import CosineSimilarity, DotProduct, NegativeDistance, Target, target_values

_UNIT = 1e-12


def shares(target: Target, outputs: Tensor) -> tuple[Tensor, Tensor]:
    r"""What each dimension of the embeddings adds to the similarity, and the dimensions themselves.

    Args:
        target: a cosine similarity, dot product or negative distance.
        outputs: embeddings ``(N, D)``.

    Returns:
        The embedding as the similarity sees it ``(N, D)``, differentiable (for the cosine divided by its
        norm), and the shares $v$ ``(N, D)`` whose sum is the similarity: $F_A \odot F_B$ for cosine and dot
        product, $-(F_A - F_B)^2$ for the negative squared distance and that over the distance for the plain
        one.

    Raises:
        TargetError: for another target, or outputs that are no embeddings.
    """
    if not isinstance(target, CosineSimilarity | DotProduct | NegativeDistance):
        raise TargetError(
            "fggb takes embeddings apart, so it explains CosineSimilarity, DotProduct or NegativeDistance "
            f"with a reference embedding, not {type(target).__name__}"
        )
    if outputs.ndim != 2:
        raise TargetError(
            f"fggb needs embeddings (N, D), the model returned {tuple(outputs.shape)}"
        )
    if outputs.dtype in (torch.float16, torch.bfloat16):
        outputs = outputs.float()
    reference = target.reference.detach().to(outputs)
    if isinstance(target, CosineSimilarity):
        outputs = outputs / torch.linalg.vector_norm(outputs, dim=1, keepdim=True).clamp_min(_UNIT)
        reference = reference / torch.linalg.vector_norm(reference, dim=-1, keepdim=True).clamp_min(
            _UNIT
        )
    plain = outputs.detach()
    if not isinstance(target, NegativeDistance):
        return outputs, plain * reference
    squares = (plain - reference).square()
    if target.squared:
        return outputs, -squares
    distance = squares.sum(dim=1, keepdim=True).sqrt()
    return outputs, -squares / torch.where(distance > 0, distance, 1)


@register(
    "fggb",
    use="Pairs of faces: which pixels make them similar, and which set them apart.",
    paper="Lu, Xu & Ebrahimi 2024",
    year=2024,
    equation="feature-guided gradient backpropagation (as ported by the FAME authors)",
    needs=("reference embedding", "gradients"),
    cost=Cost(backward=1, times=("outputs",), first=1),
    quick_audits=False,
    on_pairs={"theta": "threshold"},
    both_signs=True,
)
@dataclass(frozen=True)
class FGGB(Method):
    r"""Gradients of all dimensions of the embedding, each by what it adds to the similarity.

    With the normalised embeddings $F_A, F_B \in R^D$, $G^k$ the mean over channels of
    $|\partial F_{A,k} / \partial I_A|$ and $\tilde G^k = G^k / \|G^k\|_2$, the map is
    $S = \sum_k \tilde G^k (v_k - \theta / D)$ with $v = F_A \odot F_B$. The weights sum to
    $\cos - \theta$. $S_+ = \max(S, 0)$ is what makes the faces similar, $S_- = \max(-S, 0)$ what sets them
    apart; ``signed`` holds $S$.

    A negative distance is taken apart in the same way (not in the paper), see :func:`shares`.

    Attributes:
        theta: the threshold of the decision, in units of the similarity; 0 by default. It is divided by D.
        input_space: differentiate with respect to pixels where the preprocessing is known (``"auto"``,
            default), or always ``"pixel"``, or the ``"input"`` as the model receives it.
        sigma: standard deviation of the blur in pixels, 5 by default; 0 for none.
        kernel: odd width of the blur, 25 by default.
        chunk: images times dimensions in one backward pass, which bounds the memory; ``None`` (default) is 64,
            but on a CPU, where more than one dimension at a time gains nothing, 1.
        eps: added to the norm of each gradient, 1e-8.

    Example:
        >>> reference = camlucida.CosineSimilarity(model(images[:1]).detach()[0])
        >>> method = camlucida.methods.FGGB(theta=0.3)
        >>> found = camlucida.explain(model, images, method=method, target=reference)
    """

    explains = "input"

    theta: float = 0.0
    input_space: MaskSpace = "auto"
    sigma: NotNegative = 5.0
    kernel: Kernel = 25
    chunk: Count | None = None
    eps: NotNegative = 1e-8

    @property
    def steps(self) -> Steps:
        """What makes similar, blurred and scaled."""
        return Steps(sigma=self.sigma, kernel=self.kernel)

    def run(self, task: Task) -> RawMap:
        """One forward pass, then the dimensions in chunks."""
        pixels = task.pixels(self.input_space, "input_space")
        inputs = task.inputs
        with borrowed(task.model, inputs) as module, torch.enable_grad():
            check_inputs(module, inputs)
            images = inputs.clone() if inputs.is_inference() else inputs.detach()
            leaf = (images if pixels is None else pixels.denormalise(images)).requires_grad_()
            given = leaf.clone() if pixels is None else pixels.normalise(leaf)
            outputs = run(module, given.to(inputs.dtype), target=task.target)
            pinned = task.target.pin(outputs.detach())
            with torch.autocast(outputs.device.type, enabled=False):
                embedding, weights = shares(pinned, outputs)
                values = target_values(pinned, outputs.detach(), len(inputs))
                weights = weights - self.theta / weights.shape[1]
                signed = self._sum(task, leaf, embedding, weights)
        return RawMap.of_input(signed, outputs, pinned, values, details={"weights": weights})

    def _sum(self, task: Task, leaf: Tensor, embedding: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of the scaled gradients, ``(N, H, W)``."""
        images, dimensions = embedding.shape
        chunk = self.chunk or (1 if leaf.device.type == "cpu" else 64)
        at_once = max(1, chunk // images)
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        total = torch.zeros_like(leaf[:, 0], dtype=dtype)
        if not embedding.requires_grad:
            return total
        gradients = _by_vmap if at_once > 1 else _one_by_one
        for start in range(0, dimensions, at_once):
            stop = min(start + at_once, dimensions)
            try:
                found = gradients(embedding, leaf, start, stop)
            except RuntimeError:
                if gradients is _one_by_one:
                    raise
                gradients = _one_by_one  # an operation of the model that vmap does not know
                found = gradients(embedding, leaf, start, stop)
            size = found.to(dtype).abs().mean(dim=2)
            norm = torch.linalg.vector_norm(size, dim=(2, 3), keepdim=True)
            total += torch.einsum(
                "nk,knhw->nhw", weights[:, start:stop].to(dtype), size / (norm + self.eps)
            )
            task.report(stop, dimensions)
        return total


_Gradients = Callable[[Tensor, Tensor, int, int], Tensor]


def _by_vmap(embedding: Tensor, leaf: Tensor, start: int, stop: int) -> Tensor:
    """Gradients ``(k, N, C, H, W)`` of the dimensions from ``start`` to ``stop``, in one backward pass."""
    chosen = torch.zeros(stop - start, *embedding.shape, dtype=embedding.dtype, device=leaf.device)
    for i in range(stop - start):
        chosen[i, :, start + i] = 1
    (found,) = torch.autograd.grad(
        embedding, leaf, chosen, retain_graph=True, is_grads_batched=True
    )
    return found


def _one_by_one(embedding: Tensor, leaf: Tensor, start: int, stop: int) -> Tensor:
    """The same, one backward pass each."""
    return torch.stack([
        torch.autograd.grad(embedding[:, k].sum(), leaf, retain_graph=True)[0]
        for k in range(start, stop)
    ])  # fmt: skip
