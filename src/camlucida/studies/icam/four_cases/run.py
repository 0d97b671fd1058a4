"""The four cases over a labelled folder, batch by batch."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from camlucida.common.errors import ImageError, MethodError
from camlucida.common.store import Store
from camlucida.data.folders import open_folder
from camlucida.data.samples import Sample
from camlucida.engine.layers import Layers
from camlucida.methods import Progress
from camlucida.methods.icam import ICAM
from camlucida.models import LoadedModel, class_names_of
from camlucida.studies.icam.four_cases.measure import Examination, case_photo, dial_means
from camlucida.studies.icam.four_cases.study import CasePhoto, CaseStudy


def cases(
    model: nn.Module | LoadedModel,
    folder: str | os.PathLike[str],
    *,
    boxes: str | os.PathLike[str] | None = None,
    threshold: float = 0.5,
    method: ICAM | None = None,
    layers: Layers | None = None,
    seed: int = 0,
    dial: int = 8,
    batch_size: int = 8,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CaseStudy:
    """Explain the predicted class of every photo, and sort the photos into the four cases.

    Args:
        model: the model, as for :func:`camlucida.explain`; it must know how photos are prepared.
        folder: one subfolder of photos per class, see :func:`camlucida.data.folders.open_folder`.
        boxes: a table of boxes, see there.
        threshold: confidence from which on a prediction counts as confident.
        method: I-CAM with its options.
        layers: the layers; all blocks by default.
        seed: the seed of the perturbed copies and the permutation tests.
        dial: number of photos, spread over the folder, that take part in the experiment on confidence; 0
            for none.
        batch_size: photos at a time.
        cache: a folder that keeps what is measured, so that a stopped study goes on where it was, and another
            threshold costs nothing; what is kept is used only for the same model, options, batch size and
            unchanged files. What is done is kept also after Ctrl-C.
        progress: is called with the number of photos done and their total.

    Raises:
        ImageError: no photo can be read.
        MethodError: the model has no classes, or the threshold or batch size is out of range.
        CamlucidaError: the boxes or the folder do not fit, or the cache cannot be written.

    Example:
        >>> import pathlib, shutil
        >>> pathlib.Path("photos/3").mkdir(parents=True, exist_ok=True)
        >>> copied = shutil.copy(photo, "photos/3")
        >>> small = camlucida.Preprocess(size=(32, 32), resize=32)
        >>> ready = camlucida.LoadedModel(model, "tiny", small, None)
        >>> study = camlucida.studies.icam.cases(ready, "photos", dial=0)
        >>> [found["photos"] for found in study.table()]  # confident or unsure, right or wrong
        [..., ..., ..., ...]
    """
    if not 0 < threshold < 1 or batch_size < 1 or dial < 0:
        raise MethodError(
            f"threshold must lie in (0, 1), batch_size be >= 1 and dial >= 0, got {threshold}, {batch_size} "
            f"and {dial}"
        )
    method = method or ICAM()
    names = model.class_names if isinstance(model, LoadedModel) else class_names_of(model)
    root = Path(folder)
    every = open_folder(root, names, labels=True, boxes=None if boxes is None else os.fspath(boxes))
    total = len(every)
    count = min(dial, total)
    turning = {every[i * total // count].file for i in range(count)}
    examine = Examination(model, names, method, layers, seed)
    facts = {} if cache is None else {**examine.facts(), "root": str(root.resolve())}
    skipped = list(every.skipped)
    found: list[CasePhoto] = []
    turned: list[list[dict[str, Any]]] = []
    for start in range(0, total, batch_size):
        photos = every[start : start + batch_size]
        dialled = [photo.file in turning for photo in photos]
        store = Store(cache, {**facts, "photos": [_state(p) for p in photos], "dialled": dialled})
        part = store.value(f"cases {start:06d}", partial(examine, photos, dialled))
        skipped += [(photos[place].file, reason) for place, reason in part["skipped"]]
        for one in part["photos"]:
            found.append(case_photo(one, photos[one["place"]].file, threshold))
            if one["dialled"] is not None:
                turned.append(one["dialled"])
        if progress is not None:
            progress(start + len(photos), total)
    if not found:
        reason = skipped[-1][1] if skipped else "there is none"
        raise ImageError(f"no photo in {str(root)!r} can be read: {reason}")
    return CaseStudy(
        photos=tuple(found),
        threshold=threshold,
        dial=dial_means(turned) if turned else None,
        skipped=tuple(skipped),
        model=model.name if isinstance(model, LoadedModel) else type(model).__name__,
        method=method.describe(),
        seed=seed,
    )


def _state(photo: Sample) -> list[Any]:
    """What is measured of a photo depends on: its file, which is not read for this, its class and boxes."""
    try:
        status = photo.file.stat()
        file = [status.st_mtime_ns, status.st_size, status.st_mode]  # the mode: may it be read
    except OSError:
        file = []
    return [photo.key, file, photo.label, photo.boxes]
