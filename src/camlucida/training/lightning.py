"""Maps of fixed images over a Lightning training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from camlucida.common.optional import has, require
from camlucida.explanation import explain

_PACKAGE = (
    "pytorch_lightning"
    if has("pytorch_lightning") and not has("lightning")
    else "lightning.pytorch"
)
_Callback: Any = require(f"{_PACKAGE}.callbacks", "lightning").Callback


class MapLogger(_Callback):  # type: ignore[misc]
    """Draws the maps of the same images after a validation, to see when a network begins to look at the right thing.

    The picture goes to each logger that takes pictures (``log_image``, or ``add_image`` of its experiment), and to
    ``camlucida-maps/step-NUMBER.png`` in the trainer's folder where there is none. The module is given back as it was,
    in the middle of its training.

    Args:
        images: as the module takes them, ``(N, C, H, W)``.
        every: epochs from one picture to the next.
        name: under which loggers keep it.
        model: from the Lightning module to what is explained; the module itself by default.
        **asked: all else that :func:`camlucida.explain` takes, such as ``method``, ``target`` and ``layers``.
    """

    def __init__(
        self,
        images: Tensor,
        every: int = 1,
        name: str = "maps",
        model: Callable[[Any], nn.Module] = lambda module: module,
        **asked: Any,
    ) -> None:
        super().__init__()
        self.images = images
        self.every = every
        self.name = name
        self.model = model
        self.asked = asked

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """What Lightning calls."""
        if trainer.sanity_checking or trainer.current_epoch % self.every:
            return
        if not trainer.is_global_zero:
            return
        found = explain(self.model(pl_module), self.images.to(pl_module.device), **self.asked)
        taken = [self._log(logger, found, trainer.global_step) for logger in trainer.loggers]
        if not any(taken):
            folder = Path(trainer.default_root_dir) / "camlucida-maps"
            folder.mkdir(parents=True, exist_ok=True)
            found.save(folder / f"step-{trainer.global_step:06d}.png")

    def _log(self, logger: Any, found: Any, step: int) -> bool:
        """Whether a logger takes pictures, and has taken this one."""
        pictures = [found.overlay(i) for i in range(len(found))]
        if hasattr(logger, "log_image"):
            logger.log_image(key=self.name, images=pictures, step=step)
        elif hasattr(getattr(logger, "experiment", None), "add_image"):
            for i, picture in enumerate(pictures):
                logger.experiment.add_image(
                    f"{self.name}/{i}", np.asarray(picture), step, dataformats="HWC"
                )
        else:
            return False
        return True
