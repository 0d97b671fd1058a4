"""A package of somebody else: a method, a metric, a target, a kind of data and an audit."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

import camlucida
from camlucida import data, methods, metrics, targets
from camlucida.audits.registry import register as register_audit
from camlucida.audits.report import AuditReport
from camlucida.audits.verdicts import Verdict


@methods.register("lens-cam", paper="nobody", year=2026, equation="none", weights="channel")
@dataclass(frozen=True)
class LensCAM(methods.GradientCAM):
    """Each channel weighted by its largest gradient.

    Attributes:
        power: of the weights.
    """

    power: float = 1.0

    def combine(self, activation, gradient):
        weights = gradient.amax((2, 3), keepdim=True) ** self.power
        return (weights * activation).sum(1)


@targets.register("lens-target")
@dataclass(frozen=True, eq=False)
class LensTarget(camlucida.Logit):
    """Twice the logit."""

    def __call__(self, outputs):
        return 2 * super().__call__(outputs)


@metrics.register(
    "lens-light", direction="higher", range=(0, 1), source="nobody", question="concentration"
)
@dataclass(frozen=True)
class LensLight(metrics.OneNumber):
    """The mean of the map."""

    number = "lens-light"

    def value(self, scene, explanation):  # noqa: ARG002
        return explanation.maps.double().mean((1, 2))


@data.register("lens-noise", needs_path=False)
def lens_noise(class_names, *, count: int = 2):  # noqa: ARG001
    """Noise, of the first class."""

    @dataclass(frozen=True)
    class Noise(data.Sample):
        def picture(self):
            drawn = np.random.default_rng(len(self.key)).integers(0, 256, (16, 16, 3))
            return Image.fromarray(drawn.astype(np.uint8))

    return data.SampleList("lens-noise", [Noise("n" * (i + 1), 0) for i in range(count)])


@register_audit("lens-check", title="Lens", asks="Is it made of glass?")
def lens_check(request):
    """Everything passes."""
    verdicts = tuple(Verdict(t.label, "pass", "It is clear.") for t in request.methods)
    return AuditReport("lens-check", "Lens", "a look", "All are clear.", verdicts)
