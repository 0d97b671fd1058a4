"""Metrics of maps in the manner of torchmetrics: ``update`` with batches, ``compute`` the mean, over processes too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.common.optional import require
from camlucida.data.preprocess import Preprocess
from camlucida.engine.borrow import unwrap
from camlucida.explanation import explain
from camlucida.metrics.base import Metric, Scene
from camlucida.metrics.regions import fill_boxes
from camlucida.metrics.registry import METRICS, build_metric

_Metric: Any = require("torchmetrics", "lightning").Metric


class MapMetric(_Metric):  # type: ignore[misc]
    """The mean of a metric over all images that it was given; images that do not count are passed over.

    Args:
        metric: a registered name, also with options as in ``"iou:thresholds=0.3/0.5"``, or an object.
        method: whose maps are judged, as for :func:`camlucida.explain`.
        preprocess: how pixels became inputs, for metrics that change pixels.
        **options: of ``torchmetrics.Metric``, such as ``dist_sync_on_step``.
    """

    full_state_update = False

    def __init__(
        self,
        metric: str | Metric,
        method: Any = "gradcam",
        preprocess: Preprocess | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.metric = build_metric(metric) if isinstance(metric, str) else metric
        self.row = row = METRICS.row_of(self.metric)
        if row is not None and "reference" in row.needs:
            raise CamlucidaError(
                f"{row.name} compares with another method, which a running mean does not have; use "
                "camlucida.benchmark.evaluate"
            )
        self.method = method
        self.preprocess = preprocess
        zeros = torch.zeros(len(self.metric.names), dtype=torch.float64)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("count", zeros.clone(), dist_reduce_fx="sum")

    def update(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor | None = None,
        masks: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
    ) -> None:
        """Explain a batch and judge its maps.

        Args:
            model: the model, given back as it was.
            images: as the model takes them, ``(N, C, H, W)``.
            labels: the true class of each image, ``(N,)``.
            masks: where the objects are, ``(N, H, W)`` boolean.
            boxes: of each image its objects' boxes ``(n, 4)``, as ``xmin, ymin, xmax, ymax`` in pixels.

        Raises:
            CamlucidaError: the metric needs something that was not given, the model has no class logits, or as
                :func:`camlucida.explain`.
        """
        given = {
            "boxes": boxes, "masks": boxes if masks is None else masks, "labels": labels, "preprocess": self.preprocess,
        }  # fmt: skip
        there = {"model", "logits", *(name for name, value in given.items() if value is not None)}
        if self.row is not None and (lacking := self.row.lacking(there)):
            raise CamlucidaError(
                f"{self.row.name} needs {', '.join(lacking)}: give preprocess to MapMetric, boxes, masks and labels "
                "to update"
            )
        found = explain(model, images, method=self.method)
        if found.logits is None:
            raise CamlucidaError(
                "metrics of maps need a classifier, whose output is class logits (N, M)"
            )
        size = (int(images.shape[-2]), int(images.shape[-1]))
        known = tuple(boxes) if boxes is not None else (torch.empty(0, 4),) * len(images)
        scene = Scene(
            unwrap(model),
            images,
            found.logits,
            found.logits.argmax(1),
            torch.full((len(images),), -1) if labels is None else labels,
            known,
            fill_boxes(known, size) if masks is None else masks.bool(),
            torch.full((len(images),), masks is not None),
            self.preprocess,
        )
        values = self.metric.measure(scene, found).values
        for i, name in enumerate(self.metric.names):
            value = values[name].to(self.total)
            self.total[i] += value.nansum()
            self.count[i] += (~value.isnan()).sum()

    def compute(self) -> Tensor | dict[str, Tensor]:
        """The mean; of a metric with several numbers a mean for each name."""
        means = self.total / self.count
        return means[0] if len(means) == 1 else dict(zip(self.metric.names, means, strict=True))
