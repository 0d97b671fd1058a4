"""Where weights that this machine trained are kept."""

from __future__ import annotations

import os
from pathlib import Path

from camlucida.common.optional import require


def cache_folder() -> Path:
    """The folder of trained weights: ``CAMLUCIDA_CACHE``, else the user's cache folder. It need not exist."""
    if chosen := os.environ.get("CAMLUCIDA_CACHE"):
        return Path(chosen).expanduser()
    return Path(require("platformdirs", "train").user_cache_dir("camlucida", appauthor=False))
