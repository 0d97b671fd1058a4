"""Two small networks for data randomisation: one learned digits, one the same digits with shuffled labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camlucida.common.limits import Count, Positive
from camlucida.common.progress import Say
from camlucida.common.store import Store
from camlucida.models.small import SmallCNN, SmallConfig, as_input, small_preprocess
from camlucida.training.classifier import accuracy, small_net, train_classifier
from camlucida.training.loop import FitOptions

SIZE = 32
_FRESH = 200  # digits on which the accuracy is taken
PREPROCESS = small_preprocess(SIZE)
"""How a photo becomes the networks' input."""

LAYER = "features"
"""What is explained."""


@dataclass(frozen=True)
class TwinPlan(FitOptions):
    """How the two networks are trained: until they know a share of the labels by heart, the field ``enough``.

    Attributes:
        images: to learn, the same for both.
    """

    epochs: Count = 60
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: Positive = 0.003
    schedule: Literal["step", "cosine", "constant"] = "constant"
    accelerator: Literal["auto", "cpu", "gpu"] = "cpu"
    enough: float = 0.99
    score_every: Count = 4
    images: Count = 600

    @property
    def config(self) -> SmallConfig:
        """The network; its head sees all cells, so that shuffled labels can be learned by heart."""
        return SmallConfig(
            stages=(12, "pool", 24, "pool", 32), size=SIZE, head="flatten", hidden=(64,), classes=10
        )


@dataclass(frozen=True)
class Twins:
    """The two networks.

    Attributes:
        true: learned the true labels.
        shuffled: learned the shuffled ones.
        accuracy: share of the labels that each knows by heart, and ``test`` of the first on fresh images.
        inputs: fresh digits ``(N, 3, S, S)``, which neither has seen.
        labels: their true classes.
    """

    true: nn.Module
    shuffled: nn.Module
    accuracy: dict[str, float]
    inputs: Tensor
    labels: Tensor


def train_twins(
    count: int, plan: TwinPlan | None = None, store: Store | None = None, say: Say | None = None
) -> Twins:
    """Train both networks from the same first weights (Adebayo et al. 2018, section 4.2); under a minute.

    Beside them come ``count`` fresh images to compare maps on.

    Raises:
        CamlucidaError: the digits are not installed.
    """
    plan = plan or TwinPlan()
    store = store or Store(None, {})
    drawn, known = _digits(plan.images + max(count, _FRESH), plan.seed)
    inputs, labels = drawn[: plan.images], known[: plan.images]
    fresh, fresh_labels = drawn[plan.images :], known[plan.images :]
    shuffle = torch.randperm(len(labels), generator=torch.Generator().manual_seed(plan.seed + 1))
    nets: list[nn.Module] = []
    shares: dict[str, float] = {}
    for kind, wanted in (("true", labels), ("shuffled", labels[shuffle])):
        net = small_net(plan.config, plan.seed)

        def told(done: float, total: float, kind: str = kind) -> None:
            if say is not None:
                say(f"training on {kind} labels", len(nets) + done / total, 2)

        part = f"twin-{kind}-{asdict(plan)}"
        net.load_state_dict(store.tensors(part, partial(_train, net, inputs, wanted, plan, told)))
        nets.append(net.eval())
        shares[kind] = accuracy(net, inputs, wanted)
    shares["test"] = accuracy(nets[0], fresh, fresh_labels)
    return Twins(nets[0], nets[1], shares, fresh[:count], fresh_labels[:count])


def unlearned(shares: Mapping[str, float], plan: TwinPlan) -> str:
    """Why the two networks cannot be compared, in words; empty where both learned what they were to learn."""
    for kind in ("true", "shuffled"):
        if shares[kind] < plan.enough - 0.05:
            return f"the network with {kind} labels learned only {100 * shares[kind]:.0f} % of them"
    if shares["test"] < 0.8:
        return f"the network with true labels gets only {100 * shares['test']:.0f} % of fresh images right"
    return ""


def _digits(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """MNIST digits on noise as inputs ``(count, 3, S, S)``, and their classes ``(count,)``."""
    from camlucida.data.digits import mnist

    digits = torch.from_numpy(mnist()[0].copy()).flatten(0, 1)
    chosen = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))[:count]
    edge = (SIZE - digits.shape[-1]) // 2
    images = F.pad(digits[chosen], (edge,) * 4)[:, None].expand(-1, 3, -1, -1)
    # On black, where nothing is to be seen, any two networks would agree.
    generator = torch.Generator().manual_seed(seed + 2)
    noise = torch.randint(0, 128, tuple(images.shape), generator=generator, dtype=torch.uint8)
    return as_input(torch.maximum(images, noise)), chosen // 500


def _train(
    net: SmallCNN,
    inputs: Tensor,
    labels: Tensor,
    plan: TwinPlan,
    told: Callable[[float, float], object],
) -> dict[str, Any]:
    train_classifier(
        net,
        (inputs, labels),
        plan,
        batch=50,
        validate=lambda model: accuracy(model, inputs, labels),
        progress=told,
    )
    return net.state_dict()
