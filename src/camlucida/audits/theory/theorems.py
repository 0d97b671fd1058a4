r"""Why global weights see through walls: the model [CNN], Proposition 1 and Theorem 1.

[CNN] is one convolution, ReLU, pooling and dense layers, without biases (Taimeskhanov, Sicre and Garreau,
ECML 2024, section 2). GradCAM's weights for it have a closed form, and for random weights its expectation
inside a dead zone is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.engine.tap import tap
from camlucida.methods import GradCAM, Progress
from camlucida.targets import Logit

LAYER = "relu"
"""The layer that the theory explains: the rectified convolution."""


class TheoryCNN(nn.Module):
    r"""The model [CNN]: $\xi \to A = F * \xi \to B = \max(A, 0) \to C = \mathrm{pool}(B) \to h_L$.

    $h_0 = \mathrm{vec}(C)$ and $h_\ell = W^{(\ell)} \sigma(h_{\ell-1})$. The paper's equation 3 also puts
    $\sigma$ on $h_0$, which changes no value, but makes autograd lose the gradient of windows that are all
    zero, and Proposition 1 with it; it is left out here (B4).

    Args:
        size: (H, W) of the images.
        filters: V.
        kernel: k of the convolution, without padding.
        pool: k' of the max-pooling; it must divide the convolution's output.
        hidden: widths of the hidden dense layers; none is L = 1.
        outputs: number of outputs.
        dead_rows: rows of the pooled map, counted from below, that the first dense layer ignores.
        scale: standard deviation of all weights.
        seed: of the weights.
        channels: of the images; the paper's have 1.
        residual: between the convolution and the pooling stands a residual block, $B = \sigma(x + G * x)$ with
            $x = \sigma(F * \xi)$, whose output is explained, as that of a ResNet's last block is. $G$ is 3 x 3, and
            its weights have the standard deviation ``scale / sqrt(9 V)``, so that both branches are about as large.

    Raises:
        CamlucidaError: the pooling does not divide the map, or nothing is left to see.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        filters: int = 8,
        kernel: int = 3,
        pool: int = 2,
        hidden: Sequence[int] = (),
        outputs: int = 1,
        dead_rows: int = 0,
        scale: float = 1.0,
        seed: int = 0,
        channels: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        h, w = (side - kernel + 1 for side in size)
        if h < 1 or w < 1 or h % pool or w % pool:
            raise CamlucidaError(
                f"a pooling of {pool} does not divide the map of {h} x {w} that a {kernel} x {kernel} "
                f"convolution makes of {size[0]} x {size[1]} pixels"
            )
        self.map_size, self.pooled_size = (h, w), (h // pool, w // pool)
        if not 0 <= dead_rows < self.pooled_size[0]:
            raise CamlucidaError(
                f"dead_rows must be 0 to {self.pooled_size[0] - 1} of {self.pooled_size[0]} rows, got {dead_rows}"
            )
        self.filters = filters
        self.conv = nn.Conv2d(channels, filters, kernel, bias=False)
        self.branch = nn.Conv2d(filters, filters, 3, padding=1, bias=False) if residual else None
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(pool)
        widths = [filters * self.pooled_size[0] * self.pooled_size[1], *hidden, outputs]
        self.dense = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.parameters():
                drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                weight.copy_(scale * drawn)
            if self.branch is not None:
                self.branch.weight.div_(math.sqrt(9 * filters))
            if dead_rows:
                first = self.dense[0].weight.view(-1, filters, *self.pooled_size)  # type: ignore[operator]
                first[:, :, -dead_rows:] = 0

    def preactivations(self, x: Tensor) -> list[Tensor]:
        r"""The dense layers' outputs before their $\sigma$, $a^{(1)}$ to $a^{(L)}$, each ``(N, d)``."""
        values = self.conv(x)
        if self.branch is not None:
            values = values.relu()
            values = values + self.branch(values)
        values = self.pool(self.relu(values)).flatten(1)
        found = []
        for index, layer in enumerate(self.dense):
            values = layer(values.relu() if index else values)
            found.append(values)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, outputs)``."""
        return self.preactivations(x)[-1]


@torch.no_grad()
def proposition_1(model: TheoryCNN, x: Tensor, output: int = 0) -> Tensor:
    r"""GradCAM's channel weights without autograd, ``(N, V)``.

    $\rho = W^{(L)} D^{(L-1)} W^{(L-1)} \cdots D^{(1)} W^{(1)}$ with $D^{(\ell)}$ the diagonal of $1[a^{(\ell)} > 0]$,
    and $\alpha_v$ is the sum of $\rho$ over the pooled cells of channel v, divided by $hw$: every pooling window
    hands its gradient to exactly one cell.

    Source: Proposition 1, in matrix form.
    """
    hidden = model.preactivations(x)[:-1]
    weights = [layer.weight for layer in model.dense]
    rho = weights[-1][output].expand(len(x), -1)  # type: ignore[index]
    for weight, a in zip(reversed(weights[:-1]), reversed(hidden), strict=True):
        rho = (rho * (a > 0)) @ weight  # type: ignore[operator]
    h, w = model.map_size
    return rho.reshape(len(x), model.filters, -1).sum(2) / (h * w)


def expected_root(filters: int) -> float:
    r"""$E\sqrt Y$ for $\tau = \|m\| = 1$: $Y$ is the sum of the squares of V rectified standard normals.

    $\sum_{n=1}^V \binom V n 2^{-V} \sqrt 2\, \Gamma((n+1)/2) / \Gamma(n/2)$: the number of positive filters
    is binomial, and given it $\sqrt Y$ is chi-distributed. Close to $\sqrt{V/2}$ for many filters.

    Raises:
        CamlucidaError: for fewer than one filter.
    """
    if filters < 1:
        raise CamlucidaError(f"there must be at least one filter, got {filters}")
    from scipy import special, stats  # slow to import

    n = np.arange(1, filters + 1)
    means = np.exp(special.gammaln((n + 1) / 2) - special.gammaln(n / 2))
    return float(math.sqrt(2) * stats.binom.pmf(n, filters, 0.5) @ means)


@dataclass(frozen=True)
class Theorem1:
    r"""E of GradCAM under random weights, with the lower half of the pooled map ignored (L = 1).

    Attributes:
        size: (H, W) of the image.
        filters: V.
        kernel: k.
        pool: k'.
        tau: standard deviation of filters and of the weights that are left.
    """

    size: tuple[int, int] = (14, 14)
    filters: int = 32
    kernel: int = 3
    pool: int = 2
    tau: float = 1.0

    def __post_init__(self) -> None:
        """Check that the map has two halves.

        Raises:
            CamlucidaError: the pooling does not divide the map, or leaves an odd number of rows; there is no
                filter, or no spread.
        """
        h, w = self.map_size
        if h < 1 or w < 1 or h % self.pool or w % self.pool or (h // self.pool) % 2:
            raise CamlucidaError(
                f"Theorem 1 needs a map that the pooling divides into an even number of rows; {self.size} "
                f"pixels, a kernel of {self.kernel} and a pooling of {self.pool} give {h} x {w}"
            )
        if self.filters < 1 or not self.tau > 0:
            raise CamlucidaError(
                f"filters must be at least 1 and tau > 0, got {self.filters} and {self.tau}"
            )

    @property
    def map_size(self) -> tuple[int, int]:
        """(h, w) of the convolution's output."""
        return self.size[0] - self.kernel + 1, self.size[1] - self.kernel + 1

    def patch_norms(self, image: Tensor) -> Tensor:
        """Norm of the patch under each cell, ``(H, W)`` to ``(h, w)``."""
        patches = F.unfold(image[None, None].double(), self.kernel)
        norms: Tensor = patches[0].norm(dim=0)
        return norms.reshape(self.map_size)

    def exact(self, image: Tensor) -> Tensor:
        r"""$\frac{\tau \sqrt{h'w'}}{2 hw \sqrt\pi} E\sqrt Y$ at each cell, ``(h, w)``.

        It depends on the patch alone, not on whether the cell is in the dead half: that is the point.
        """
        return self._factor * self.tau * expected_root(self.filters) * self.patch_norms(image)

    @property
    def _factor(self) -> float:
        r"""What $E\sqrt Y$ is multiplied with, whatever the features are that stand before the dense layer."""
        h, w = self.map_size
        return self.tau * math.sqrt(h * w) / (2 * self.pool * h * w * math.sqrt(math.pi))

    def bound(self, image: Tensor) -> Tensor:
        r"""The theorem's lower bound, ``(h, w)``; of use for V > 20.

        $\frac{V - 20}{\sqrt V} \sqrt{\frac{h'w'}{16 \pi}} \frac{\tau^2}{hw} \|m\|_2$.
        """
        h, w = self.map_size
        pooled = h * w / self.pool**2
        factor = (self.filters - 20) / math.sqrt(self.filters) * math.sqrt(pooled / (16 * math.pi))
        return factor * self.tau**2 / (h * w) * self.patch_norms(image)

    def sample(
        self,
        image: Tensor,
        draws: int = 4000,
        seed: int = 0,
        chunk: int = 250,
        progress: Progress | None = None,
    ) -> MonteCarlo:
        """GradCAM of many random networks for one image, output fixed (B9).

        Raises:
            CamlucidaError: fewer than two networks, which have no standard error, or the image has another size.
        """
        self._check(image, draws)
        h, w = self.map_size
        pooled = (h // self.pool) * (w // self.pool)
        generator = torch.Generator().manual_seed(seed)
        patches = F.unfold(image[None, None].double(), self.kernel)[0]
        total = torch.zeros(h * w, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for start in range(0, draws, chunk):
            count = min(chunk, draws - start)
            filters, weights = (
                self.tau
                * torch.randn(count, self.filters, n, generator=generator, dtype=torch.float64)
                for n in (self.kernel**2, pooled // 2)
            )
            # Proposition 1 with L = 1; the ignored half of the weights is zero.
            alpha = weights.sum(2) / (h * w)
            maps = (alpha[:, :, None] * (filters @ patches).relu()).sum(1).relu()
            total += maps.sum(0)
            squares += maps.square().sum(0)
            if progress is not None:
                progress(start + count, draws)
        return MonteCarlo.of(total.reshape(h, w), squares.reshape(h, w), draws)

    def network(self, seed: int = 0, *, residual: bool = False) -> TheoryCNN:
        """A random network of the theorem, or its residual version, in double precision."""
        model = TheoryCNN(
            self.size, filters=self.filters, kernel=self.kernel, pool=self.pool, scale=self.tau, seed=seed,
            dead_rows=self.map_size[0] // self.pool // 2, residual=residual,
        )  # fmt: skip
        return model.double().eval()

    def by_autograd(
        self,
        image: Tensor,
        draws: int = 400,
        seed: int = 0,
        *,
        residual: bool = False,
        progress: Progress | None = None,
    ) -> tuple[MonteCarlo, MonteCarlo]:
        r"""GradCAM of many random networks as it is computed for any network: by autograd.

        Returns:
            GradCAM; and its distance from what is expected of it given the features,
            $\frac{\tau \sqrt{h'w'}}{2 hw \sqrt\pi} \sqrt{\sum_v (B^v_{ij})^2}$, which is 0 on average for any features
            that stand before one random dense layer: the theorem's proof uses nothing else of them.

        Raises:
            CamlucidaError: as :meth:`sample`.
        """
        self._check(image, draws)
        sums = torch.zeros(4, *self.map_size, dtype=torch.float64)
        for draw in range(draws):
            model = self.network(seed + draw, residual=residual)
            activation, gradient = tap(model, image[None, None].double(), LAYER, Logit(0)).only
            found = GradCAM().combine(activation, gradient)[0].relu()
            off = found - self._factor * activation[0].square().sum(0).sqrt()
            sums += torch.stack([found, found.square(), off, off.square()])
            if progress is not None:
                progress(draw + 1, draws)
        return MonteCarlo.of(sums[0], sums[1], draws), MonteCarlo.of(sums[2], sums[3], draws)

    def _check(self, image: Tensor, draws: int) -> None:
        if draws < 2 or tuple(image.shape) != tuple(self.size):
            raise CamlucidaError(
                f"at least two networks and an image of {self.size} are needed, got {draws} and "
                f"{tuple(image.shape)}"
            )


@dataclass(frozen=True)
class MonteCarlo:
    """Mean of GradCAM over random networks.

    Attributes:
        mean: at each cell, ``(h, w)``.
        error: its standard error.
        draws: number of networks.
    """

    mean: Tensor
    error: Tensor
    draws: int

    @classmethod
    def of(cls, total: Tensor, squares: Tensor, draws: int) -> MonteCarlo:
        """From the sums of the values and of their squares."""
        mean = total / draws
        variance = (squares / draws - mean**2).clamp_min(0) * draws / (draws - 1)
        return cls(mean, (variance / draws).sqrt(), draws)

    def z(self, expected: Tensor | float) -> Tensor:
        """Distance from the expectation in standard errors, ``(h, w)``; 0 where both are 0."""
        off = self.mean - expected
        return torch.where(self.error > 0, off / self.error.clamp_min(1e-300), off)
