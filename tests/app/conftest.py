"""A page over a small network, served from this process."""

from __future__ import annotations

import pytest

from reference.pages import serving, small_model


@pytest.fixture
def studio():
    from camlucida.app.question import Written
    from camlucida.app.studio import Studio

    return Studio([small_model()], [Written("small")])


@pytest.fixture
def served(studio):
    page, end = serving(studio)
    yield page
    end()
