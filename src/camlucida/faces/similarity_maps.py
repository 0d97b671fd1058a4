"""What makes faces similar to others, and what sets them apart: any method on the similarity of embeddings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from camlucida.engine.maps import Steps
from camlucida.explanation import Explanation
from camlucida.explanation.explain import MethodLike, explain, listed
from camlucida.faces.embedder import Embedder
from camlucida.methods import Method, Progress, build, method_name, method_row, read_method, row_of
from camlucida.targets import Negated, Target

SIMILAR_ONLY = (
    "the literature defines only the similar map of this method; the dissimilar one is the map of the negated "
    "similarity"
)


@dataclass(frozen=True)
class SimilarityMaps:
    """Maps of one method for a batch of faces, each with its own reference.

    Attributes:
        label: a short name for the method with its options.
        similar: ``(N, H, W)`` in [0, 1], what makes each face similar to its reference (e+).
        dissimilar: the same for what sets it apart (e-), on one scale with e+, so that the stronger one reaches 1;
            ``None`` where it was not asked for, and e+ then reaches 1.
        signed: the method's own map ``(N, h, w)`` before rectifying.
        values: the explained similarity of each face, ``(N,)``.
        messages: the messages about each face, what a reader has to know.
        facts: method, target and layers, ready for JSON.
        seconds: what the maps took.
    """

    label: str
    similar: Tensor
    dissimilar: Tensor | None
    signed: Tensor
    values: Tensor
    messages: tuple[tuple[str, ...], ...]
    facts: dict[str, Any]
    seconds: float


def face_method(
    method: MethodLike, target: Target, *, threshold: float | None = None, seed: int = 0
) -> tuple[Method, str]:
    """A method as it is used on faces, and its label.

    By name, the options that its row of the registry gives for pairs hold: FAME moves pixels instead of normalised
    inputs (the paper), FGGB knows the threshold, and CorrRISE draws its masks from the seed. Options given by hand go
    first. A method object is taken as it is.

    Args:
        method: a registered name, a pair of a name and its options, or an object.
        target: the similarity.
        threshold: the threshold of the similarity, for FGGB; ``None`` for 0.
        seed: the seed of the masks that all faces share.

    Raises:
        MethodError: an unknown name or option, or a method that explains classes only.
    """
    if isinstance(method, Method):
        return method, method_name(method)
    (named,) = listed(method)
    name, options = read_method(named)
    row = method_row(name)
    label = row.name + (
        f" ({', '.join(f'{k}={v}' for k, v in options.items())})" if options else ""
    )
    own = {"threshold": threshold or 0.0, "seed": seed}
    on_pairs = {k: own.get(v, v) for k, v in row.on_pairs.items()}
    return build(row.name, target, **{**on_pairs, **options})[0], label


def similarity_maps(
    embedder: Embedder,
    inputs: Tensor,
    references: Tensor,
    method: MethodLike,
    *,
    dissimilar: bool = True,
    threshold: float | None = None,
    layers: str | None = None,
    target_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> SimilarityMaps:
    """Explain how similar faces are to their references.

    FAME lowers the similarity for e+ and raises it for e- (two runs). CorrRISE and FGGB give one signed map,
    whose positive and negative parts are e+ and e-. For every other method e+ is the map of the similarity and
    e- that of its negative; activation maps hold the cosine's norms constant.

    Args:
        embedder: the network.
        inputs: aligned faces as the network receives them, ``(N, C, H, W)``.
        references: the embedding each is compared with, ``(N, D)``.
        method: a registered name, a pair of a name and its options, or a method object.
        dissimilar: also make e-.
        threshold: the threshold of the similarity; by default the embedder's.
        layers: the layers for activation maps; by default the embedder's.
        target_options: options for :meth:`Embedder.target`, such as ``{"detach_norms": True}``.
        seed: the seed of methods that draw random numbers.
        batch_size: faces at a time.
        progress: is called with the share of the work done, and 1.

    Raises:
        MethodError: the method cannot explain similarities.
    """
    started = time.monotonic()
    theta = embedder.threshold if threshold is None else threshold
    given = dict(target_options or {})
    target = embedder.target(references, **given)
    kind = given.get("compare", embedder.compare)
    if kind == "distance" and theta is not None and given.get("squared", True):
        theta = -(theta**2)  # of the negative squared distance, which is what the target is
    one, label = face_method(method, target, threshold=theta, seed=seed)
    if one.uses_layers and kind == "cosine" and "detach_norms" not in given:
        target = embedder.target(references, **given, detach_norms=True)
    row = row_of(one)
    signed, opposite = (row.both_signs, row.opposite) if row else (False, {})
    both = dissimilar and not signed

    def explained(which: Method, what: Target, part: int) -> Explanation:
        return explain(
            embedder,
            inputs,
            method=which,
            target=what,
            layers=(layers or embedder.layer) if which.uses_layers else None,
            seed=seed,
            batch_size=batch_size,
            progress=None
            if progress is None
            else lambda done, of: progress((part + done / of) / (2 if both else 1), 1),
        )

    usual = {name: row.options[name] for name in opposite} if row else {}
    first = explained(replace(one, **usual), target, 0)
    notes = [list(d.messages) for d in first.diagnostics]
    similar, second, opposed = first.maps, None, first.signed
    if dissimilar and signed:
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        opposed = -first.signed
        second = one.steps.finish(opposed, size)
    elif dissimilar:
        if opposite:
            other = explained(replace(one, **opposite), target, 1)
        else:
            other = explained(one, Negated(target), 1)
            for note in notes:
                note.append(SIMILAR_ONLY)
        second, opposed = other.maps, other.signed
        for note, d in zip(notes, other.diagnostics, strict=True):
            note += [f"dissimilar: {m}" for m in d.messages if m not in note]
    if second is not None:
        share = _strengths(one.steps, first.signed, opposed, similar)
        similar, second = similar * share[0], second * share[1]
    return SimilarityMaps(
        label=label,
        similar=similar,
        dissimilar=second,
        signed=first.signed,
        values=first.target_values,
        messages=tuple(tuple(note) for note in notes),
        facts={
            **one.describe(),
            "target": type(target).__name__,
            "detach_norms": getattr(target, "detach_norms", None),
            "layers": list(first.layers),
            "seed": seed,
        },
        seconds=time.monotonic() - started,
    )


def _strengths(steps: Steps, similar: Tensor, dissimilar: Tensor, like: Tensor) -> Tensor:
    """What each of two signed maps ``(N, h, w)`` reaches before scaling, over the larger one: ``(2, N, 1, 1)``."""
    if steps.normalise == "none":
        return torch.ones_like(like[None, :, :1, :1]).expand(2, -1, -1, -1)
    bare, size = replace(steps, normalise="none"), (int(like.shape[-2]), int(like.shape[-1]))
    reached = []
    for signed in (similar, dissimilar):
        maps = bare.finish(signed, size)
        least = maps.amin((1, 2)) if steps.normalise == "minmax" else 0.0
        reached.append((maps.amax((1, 2)) - least).clamp_min(0))
    both = torch.stack(reached)
    largest = both.amax(0, keepdim=True)
    share = torch.where(largest > 0, both / largest.clamp_min(torch.finfo(both.dtype).tiny), 1.0)
    return share[..., None, None].to(like)


def same_embedding(similarity: float, compare: str) -> bool:
    """Whether two embeddings are the same as far as single precision tells."""
    return similarity > 1 - 1e-6 if compare == "cosine" else similarity > -1e-5


IDENTICAL = (
    "probe and gallery have the same embedding: the similarity is at its largest, where its gradient is zero, "
    "so that maps from gradients show rounding only (or nothing), and the squared distance moves nothing"
)
