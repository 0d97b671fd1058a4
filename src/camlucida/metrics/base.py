"""What every metric is, what it may look at, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import check_fields
from camlucida.data.preprocess import Preprocess
from camlucida.engine.reading import probabilities
from camlucida.explanation import Explanation

T = TypeVar("T")

Question: TypeAlias = Literal[
    "localisation",
    "faithfulness",
    "stability",
    "randomisation",
    "agreement",
    "concentration",
    "dead zones",
    "other",
    "cost",
]
"""What a number says about a map; reports are ordered by it."""

MetricNeed: TypeAlias = Literal[
    "boxes", "masks", "labels", "logits", "preprocess", "model", "reference"
]
"""What a metric cannot do without.

``boxes``, ``masks`` (boxes will do), ``labels`` of the data; ``logits``, ``model`` and its ``preprocess``; the
explanation of a ``reference`` method.
"""


Space: TypeAlias = Literal["auto", "pixel", "input"]
"""Where images are changed: ``"pixel"`` values in [0, 1] before normalisation, where 0 is black, or the model's
``"input"``, where 0 is usually the mean colour; ``"auto"`` is pixels where the preprocessing is known."""


@dataclass(frozen=True)
class Scene:
    """A batch of images as metrics see it: everything that does not depend on the explaining method.

    Attributes:
        model: the module in eval mode; metrics leave it as it was.
        inputs: the images as the model takes them, ``(N, C, H, W)``.
        logits: the model's output for them, ``(N, M)``: one forward pass shared by all methods and metrics.
        classes: the explained class of each image, ``(N,)``.
        labels: the true class of each image, ``(N,)``; -1 where it is not known.
        boxes: of each image, its objects' boxes ``(n, 4)`` as ``xmin, ymin, xmax, ymax`` in pixels of the
            *input*, cut at its edges, the right and lower edges exclusive; ``n`` may be 0.
        masks: where the objects are, ``(N, H, W)`` boolean: the exact mask where the data set has one, else the
            union of the filled boxes; empty where nothing is known or nothing of it is inside the input.
        exact: whether each image's mask is exact, ``(N,)``.
        preprocess: for metrics that work on pixels in [0, 1]; ``None`` where it is not known.
        seed: each image's random numbers come from it and the image (``ImageGenerators``).
        batch_size: images per forward pass that a metric may use at a time.
        references: explanations of the same images to compare with, by the method's registered name or label.
        watch: called with the name of a number whose curves grow, and the curves ``(N, P)`` as far as they are known,
            NaN elsewhere.

    Example:
        >>> logits = torch.tensor([[0.1, 2.0], [0.3, 0.2]])
        >>> none, masks = torch.tensor([-1, -1]), torch.zeros(2, 32, 32, dtype=torch.bool)
        >>> scene = camlucida.metrics.Scene(
        ...     model, images, logits, logits.argmax(1), none, (torch.empty(0, 4),) * 2, masks, none > 0
        ... )
        >>> len(scene), scene.predicted.tolist()
        (2, [1, 0])
    """

    model: nn.Module
    inputs: Tensor
    logits: Tensor
    classes: Tensor
    labels: Tensor
    boxes: tuple[Tensor, ...]
    masks: Tensor
    exact: Tensor
    preprocess: Preprocess | None = None
    seed: int = 0
    batch_size: int = 32
    references: Mapping[str, Explanation] = field(default_factory=dict)
    watch: Callable[[str, Tensor], object] | None = None

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    @cached_property
    def predicted(self) -> Tensor:
        """The predicted class of each image, ``(N,)``."""
        return self.logits.argmax(1)

    @cached_property
    def probabilities(self) -> Tensor:
        """The model's own probabilities ``(N, M)``: a softmax, of labels a sigmoid each."""
        return probabilities(self.model, self.logits)

    @cached_property
    def correct(self) -> Tensor:
        """Whether the true class is known and predicted, ``(N,)`` boolean."""
        return self.predicted == self.labels.to(self.predicted.device)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What does not depend on the explaining method, made for the first of them and kept with the scene.

        Args:
            key: what it is.
            make: makes it.
        """
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}

    def reference(self, name: str) -> Explanation:
        """The explanation that others are compared with.

        Raises:
            CamlucidaError: there is none of that name.
        """
        if name not in self.references:
            there = ", ".join(self.references) or "none"
            raise CamlucidaError(
                f"this metric compares with {name!r}, which is not among the reference explanations "
                f"({there}); add that method to the run, or name another with reference="
            )
        return self.references[name]

    @cached_property
    def pixels(self) -> Tensor:
        """The images in [0, 1], before the model's normalisation, ``(N, C, H, W)``.

        Raises:
            CamlucidaError: the model's preprocessing is not known.
        """
        return self.normalised().denormalise(self.inputs)

    def normalised(self) -> Preprocess:
        """How pixels in [0, 1] become inputs.

        Raises:
            CamlucidaError: the model's preprocessing is not known.
        """
        if self.preprocess is None:
            raise CamlucidaError(
                "this metric changes pixels in [0, 1], so it has to know how the model's inputs are "
                "normalised; pass preprocess=, or use space='input' where the metric has it"
            )
        return self.preprocess

    def images(self, space: Space) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The images in the space in which a metric changes them, and what makes them inputs again.

        Raises:
            CamlucidaError: ``"pixel"`` where the model's preprocessing is not known.
        """
        if space == "input" or (space == "auto" and self.preprocess is None):
            return self.inputs, lambda images: images
        return self.pixels, self.normalised().normalise


@dataclass(frozen=True)
class Measured:
    """What a metric found out about a batch.

    Attributes:
        values: one number per image for each of the metric's names, ``{name: (N,)}``; NaN where an image does
            not count, such as one without a box.
        curves: for names whose number sums up a curve, its heights, ``{name: (N, P)}``.
        at: the positions of those heights, ``{name: (P,)}``.

    Example:
        >>> camlucida.metrics.Measured.of(peak=torch.tensor([0.5, 1.0])).values["peak"].tolist()
        [0.5, 1.0]
    """

    values: dict[str, Tensor]
    curves: dict[str, Tensor] = field(default_factory=dict)
    at: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, **values: Tensor) -> Measured:
        """Numbers without curves, by name."""
        return cls(dict(values))


@dataclass(frozen=True)
class Metric:
    """Base of all metrics: a frozen dataclass whose fields are the options of the paper.

    The numbers themselves are computed by pure functions on tensors; a metric says which function, with
    which options, on which of the maps. A metric of your own derives from this, or from :class:`OneNumber`, and
    is made known with :func:`camlucida.metrics.register`.

    Attributes:
        named: the names of its numbers where no option changes them; registering fills them in.

    Example:
        >>> camlucida.metrics.PointingGame(tolerance=15).describe()["options"]
        {'tolerance': 15, 'ties': 'mean'}
    """

    named: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Check the options by their types.

        Raises:
            CamlucidaError: naming the option, its value and what it may be.
        """
        check_fields(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the numbers that :meth:`measure` returns, such as ``("iou@0.3", "iou@0.5")``."""
        return self.named

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """Judge the maps of one method.

        Args:
            scene: the images, the model and what is known about them.
            explanation: of the same images; its ``maps`` ``(N, H, W)`` are in [0, 1] at the input's
                resolution, ``raw`` and ``signed`` ``(N, h, w)`` at the layer's.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Name and options, ready for JSON."""
        options = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"metric": type(self).__name__, "options": options}


@dataclass(frozen=True)
class OneNumber(Metric):
    """Base of the metrics that return one number, without a curve.

    Example:
        >>> camlucida.metrics.Sparseness().names
        ('sparseness',)
    """

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """The number of each image, ``(N,)``; NaN where an image does not count. Arguments as :meth:`measure`."""
        raise NotImplementedError

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """Judge the maps of one method by :meth:`value`."""
        return Measured({self.names[0]: self.value(scene, explanation)})
