"""``camlucida version``."""

from __future__ import annotations

import typer

from camlucida.common.version import __version__


def version() -> None:
    """Print the version."""
    typer.echo(f"camlucida {__version__}")
