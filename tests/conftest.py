"""What all tests share: one thread, a fixed hypothesis profile, deterministic draws."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

torch.set_num_threads(1)

settings.register_profile(
    "camlucida",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("camlucida")


@pytest.fixture(autouse=True)
def _no_width_from_outside(monkeypatch):
    """Test workers are told a terminal's width, which decides how tables are broken."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def _fixed_random_state():
    """Each test draws the same random weights, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _printed_documents_are_as_their_schemas_say():
    """Agents rely on the shapes of ``--json``."""
    from reference.documents import held

    with held():
        yield
