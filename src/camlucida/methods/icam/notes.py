"""The numerical traps of I-CAM, in words, where an image falls into one."""

from __future__ import annotations

import torch
from torch import Tensor

from camlucida.methods.icam.options import ICAMOptions
from camlucida.methods.icam.passes import Copies, Seen

_OVERTURNED = (
    0.2  # share from which on maps were seen to correlate negatively with those without alpha
)
_PATCHY = 0.01  # share of entries beyond a pole that is worth a word


def remarks(
    options: ICAMOptions,
    seen: Seen,
    copies: Copies,
    scores: Tensor,
    weights: Tensor,
    kind: torch.dtype,
) -> dict[int, list[str]]:
    """What a reader of each image's map has to know, ``{position: remarks}``."""
    found: dict[int, list[str]] = {}
    for i in range(len(seen.score)):
        said = [
            *_about_copies(options, copies, i),
            *_about_layers(seen, scores, i),
            *_about_alpha(options, seen, weights[i].mean(0), i),
            *_about_size(options, seen, kind, i),
            *_about_bias(options, seen, weights[i].mean(0), i),
        ]
        if said:
            found[i] = said
    return found


def _about_copies(options: ICAMOptions, copies: Copies, i: int) -> list[str]:
    said = []
    raw = copies["svim"][i] * copies["mds"][i]
    if (raw < 0).any():
        said.append(
            "some perturbed copies get no weight that can be computed (MDS is negative in equation 5), so there is "
            "no map; mds_clamp=true counts them as 0"
        )
    uniform = int((raw == 0).all(-1).sum())
    if uniform:
        runs = "" if options.runs == 1 else f" in {uniform} of {options.runs} runs"
        said.append(
            f"every perturbed copy changes the output so much that its weight is 0{runs}; all copies were "
            f"counted alike; a lower alpha than {options.alpha:g} perturbs less"
        )
    return said


def _about_layers(seen: Seen, scores: Tensor, i: int) -> list[str]:
    if not scores[i].any():
        return ["all layer scores are 0, so the layers were averaged with equal weights"]
    blind = [
        name for name, is_blind in zip(seen.maps, seen.blind[i].tolist(), strict=True) if is_blind
    ]
    if not blind:
        return []
    return [f"the target does not depend on the map of {', '.join(blind)}, which scores 0"]


def _about_alpha(options: ICAMOptions, seen: Seen, weights: Tensor, i: int) -> list[str]:
    if options.alpha_form == "none":
        return []
    y = float(seen.margin[i].sigmoid())
    if options.alpha_form == "literal" and seen.second[i] == 0:
        sure = options.function in {"softmax", "sigmoid"}
        where = "where the model is exactly half sure" if sure else "for this function"
        return [
            f"the map is empty: I-CAM's factor alpha is 0 {where}; alpha_form=none leaves the factor out"
        ]
    share = float((weights.to(seen.pole_share) * seen.pole_share[i]).sum())
    if not share > _PATCHY:  # also where it is NaN, as of numbers that overflow
        return []
    harm = "may show the opposite" if share > _OVERTURNED else "may be speckled"
    said = (
        f"{share:.0%} of what speaks for the class is counted against it, since I-CAM's factor alpha changes its sign "
        f"where the model is so sure (Y = {y:.4f}): the map {harm}; alpha_form=none leaves the factor out"
    )
    return [said]


def _about_size(options: ICAMOptions, seen: Seen, kind: torch.dtype, i: int) -> list[str]:
    before = torch.stack([m.values[i].abs().max() for m in seen.maps.values()]).max()
    after = before.to(kind)
    lost = bool(before > 0 and after == 0) or bool(seen.first[i] == 0)
    if options.alpha_form == "literal" and seen.second[i] == 0:
        return []
    if lost:
        said = (
            f"the model is so sure that the map is lost in rounding (it is multiplied by {float(seen.first[i]):.2g}); "
            "drop_common_factor=true leaves this factor out, which is the same for all places"
        )
        return [said]
    if not after.isfinite() and not seen.first[i].isnan():
        said = (
            f"the map is too large for its number format (it is multiplied by {float(seen.first[i]):.2g}); "
            "drop_common_factor=true leaves this factor out, which is the same for all places"
        )
        return [said]
    return []


def _about_bias(options: ICAMOptions, seen: Seen, weights: Tensor, i: int) -> list[str]:
    if options.bias == "none":
        return []
    said = []
    if options.drop_common_factor and (options.relu or options.layer_normalise == "max"):
        said.append(
            f"drop_common_factor changes how much the {options.bias} bias counts beside the map, which shows with relu "
            "and with layer_normalise=max; bias=none avoids it"
        )
    if options.relu:
        counted = [
            (name, m)
            for (name, m), w in zip(seen.maps.items(), weights.tolist(), strict=True)
            if w > 0
        ]
        emptied = [n for n, m in counted if m.values[i].max() + m.constant[i] <= 0]
        if emptied:
            said.append(
                f"with its bias the map of {', '.join(emptied)} is negative, and relu leaves nothing of it"
            )
        idle = [n for n, m in counted if m.values[i].min() + m.constant[i] >= 0]
        if len(idle) == len(counted):
            said.append("the bias lifts all maps above 0, so that relu does nothing")
    return said
