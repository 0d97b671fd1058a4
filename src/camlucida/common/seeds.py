"""One random stream per image: batch, single and distributed runs draw the same numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

Seed = int | torch.Generator


class ImageGenerators:
    """A random generator for each image of a batch, derived from a seed and the image itself.

    The numbers are drawn on the CPU and moved, so that they are the same on every device.

    Images are looked at when the first number is drawn: methods that draw none pay nothing.

    Args:
        seed: the seed.
        inputs: the images, ``(N, ...)``.
    """

    def __init__(self, seed: int, inputs: Tensor) -> None:
        self._seed = seed
        self._inputs = inputs

    @classmethod
    def of(cls, seed: Seed, inputs: Tensor) -> ImageGenerators:
        """Generators for the images ``(N, ...)`` from a seed, or from a number drawn from a generator."""
        if isinstance(seed, torch.Generator):
            seed = int(torch.randint(2**62, (1,), generator=seed, device=seed.device))
        return cls(seed, inputs)

    @cached_property
    def seeds(self) -> list[int]:
        """A seed for each image, for code that draws from streams of its own."""
        return [_mix(self._seed, image) for image in self._inputs]

    @cached_property
    def _generators(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def __len__(self) -> int:
        return len(self._inputs)

    def randn(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal numbers ``(N, *shape)`` with the device and type of ``like``."""
        return self._stack(
            [
                torch.randn(*shape, generator=g, dtype=torch.float32, device="cpu")
                for g in self._generators
            ],
            like,
        )

    def rand(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), ``(N, *shape)``."""
        return self._stack(
            [
                torch.rand(*shape, generator=g, dtype=torch.float32, device="cpu")
                for g in self._generators
            ],
            like,
        )

    @staticmethod
    def _stack(drawn: list[Tensor], like: Tensor) -> Tensor:
        return torch.stack(drawn).to(like)


def _mix(seed: int, image: Tensor) -> int:
    values = image.detach().to("cpu", torch.float32).contiguous()
    digest = hashlib.blake2b(digest_size=8, key=seed.to_bytes(16, "little", signed=True))
    digest.update(repr(tuple(values.shape)).encode())
    digest.update(values.numpy().tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1
