"""Where a command computes."""

from __future__ import annotations

from camlucida.cli.shared.console import complain


def on_device(given: str | None) -> str | None:
    """The device that was given, or else a GPU where there is one, which is said."""
    import torch

    if given is not None or not torch.cuda.is_available():
        return given
    name = torch.cuda.get_device_name()
    complain(f"note: computing on cuda, {name}; --device cpu computes on the processor")
    return "cuda"
