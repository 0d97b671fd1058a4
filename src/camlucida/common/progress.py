"""How long work tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Say: TypeAlias = Callable[[str, float, float], object]
"""``say(what, done, total)``: what is being done, how much of it is, and how much there is to do."""
