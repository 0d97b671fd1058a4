"""What a person asks of a photo: read from the page, explained, and written as command and Python lines."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from camlucida.app.photos import Photo
from camlucida.common.errors import CamlucidaError, MethodError, TargetError
from camlucida.data import resolve_class
from camlucida.explanation import Explanation, explain
from camlucida.methods import build
from camlucida.models import LoadedModel
from camlucida.targets import TARGETS, Target, build_target

MOST_METHODS = 24
_LONGEST = 300  # letters of any text of a question


@dataclass(frozen=True)
class Question:
    """What is asked of a photo; two that are equal have the same answer.

    Attributes:
        photo: the key of the photo.
        methods: as on the command line.
        model: which of the page's models.
        target: the number that is explained, as on the command line.
        class_: index or name of the class; ``None`` for the predicted one.
        against: its rivals.
        layer: the explained layer; ``None`` for the methods' own choice.
        signed: show evidence against the target too.
        seed: of methods that draw random numbers.
        two_colours: show, against rivals, in a second colour what speaks for them.
    """

    photo: str
    methods: tuple[str, ...] = ("gradcam",)
    model: int = 0
    target: str = "logit"
    class_: str | None = None
    against: tuple[str, ...] = ()
    layer: str | None = None
    signed: bool = False
    seed: int = 0
    two_colours: bool = True

    @property
    def steps(self) -> str | None:
        """How maps are scaled: as the methods do it, or with their signs."""
        return "signed" if self.signed or (self.against and self.two_colours) else None

    @classmethod
    def read(cls, asked: Mapping[str, Any]) -> Question:
        """A question out of what the page sent.

        Raises:
            CamlucidaError: something is of another type, too long, unknown or does not go together.
        """
        own = cls(
            photo=text(asked, "photo"),
            methods=texts(asked, "methods", ("gradcam",)),
            model=number(asked, "model"),
            target=text(asked, "target", "logit") or "logit",
            class_=text(asked, "class", "") or None,
            against=texts(asked, "against"),
            layer=text(asked, "layer", "") or None,
            signed=asked.get("signed") is True,
            seed=number(asked, "seed"),
        )
        if not 0 < len(own.methods) <= MOST_METHODS:
            raise MethodError(
                f"choose 1 to {MOST_METHODS} methods at a time, got {len(own.methods)}"
            )
        target = own.wanted()
        for method in own.methods:
            build(method, target)
        return own

    def wanted(self) -> Target:
        """The target, class names not looked up yet, as ``camlucida explain`` makes it of the same options."""
        name, rivals = self.target, {"rivals": self.against} if self.against else {}
        if rivals:
            name = "margin" if name == "logit" else name
            if "rivals" not in TARGETS.read(name)[0].settable:
                raise CamlucidaError(
                    f"a rival is compared with, which the target {name} does not do; choose margin or finer"
                )
        return build_target(name, self.class_, **rivals)

    def of(self, method: str) -> Question:
        """The same question of one method."""
        return replace(self, methods=(method,))

    @property
    def layers(self) -> list[str] | None:
        """The layer, for methods that explain layers."""
        uses = any(build(method)[0].uses_layers for method in self.methods)
        return [self.layer] if self.layer is not None and uses else None

    def explain(
        self, model: LoadedModel, photo: Photo, progress: Callable[[float, float], None]
    ) -> Explanation:
        """The answer of the only method.

        Raises:
            CamlucidaError: it cannot be given.
        """
        (method,) = self.methods
        found: Explanation = explain(
            model,
            photo.picture,
            method=(method, {"both_sides": True} if self.against and self.two_colours else {}),
            target=self.wanted(),
            layers=self.layers,
            steps=self.steps,
            seed=self.seed,
            progress=progress,
        )
        return replace(found, sources=(photo.name,))


@dataclass(frozen=True)
class Written:
    """How the page's model is named on the command line and in Python.

    Attributes:
        name: what ``--model`` takes.
        how: the other arguments of :func:`camlucida.load_model`, and the device.
    """

    name: str
    how: Mapping[str, Any] = field(default_factory=dict)

    def options(self) -> list[str]:
        """Of the command."""
        parts = ["--model", self.name] if self.name != "embedded" else []
        flat = {**self.how, **self.how.get("preprocess", {})}
        flat.pop("preprocess", None)
        for name, value in flat.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                parts.append(option if value else f"--no-{name}")
            elif name == "resize" and value is None:
                parts += [option, "none"]
            else:
                several = isinstance(value, tuple)
                sep = "x" if name in {"size", "resize"} else ","
                parts += [option, sep.join(map(str, value)) if several else str(value)]
        return parts

    def python(self) -> str:
        """The line that loads it."""
        how = "".join(f", {name}={value!r}" for name, value in self.how.items())
        return f"model = camlucida.load_model({self.name!r}{how})"


def by_name(question: Question, names: Sequence[str] | None) -> Question:
    """The same question with classes by their names, where a name means the same class."""

    def named(given: str) -> str:
        index = int(given) if given.isdecimal() and len(given) < 10 else len(names or ())
        name = names[index].partition(",")[0] if names and index < len(names) else given
        try:
            return name if resolve_class(name, names) == index else given
        except TargetError:
            return given

    own = None if question.class_ is None else named(question.class_)
    return replace(question, class_=own, against=tuple(map(named, question.against)))


def command(question: Question, photo: Photo, model: Written) -> str:
    """The command line that gives the same answer."""
    parts = ["camlucida", "explain", str(photo.path or photo.name), *model.options()]
    for method in question.methods:
        parts += ["--method", method]
    if question.class_ is not None:
        parts += ["--class", question.class_]
    for rival in question.against:
        parts += ["--against", rival]
    if question.target != "logit":
        parts += ["--target", question.target]
    for layer in question.layers or ():
        parts += ["--layer", layer]
    parts += ["--signed"] if question.signed else []
    parts += ["--seed", str(question.seed)] if question.seed else []
    return shlex.join(parts)


def python(question: Question, photo: Photo, model: Written) -> str:
    """Python lines that give the same answer."""
    methods: list[Any] = [*question.methods]
    if question.against:
        methods = [(method, {"both_sides": True}) for method in methods]
    target = repr(question.class_) if question.class_ is not None else "None"
    if question.against or question.target != "logit":
        name = question.target if question.target != "logit" else "margin"
        own = [repr(name), *([repr(question.class_)] if question.class_ is not None else [])]
        own += [f"rivals={question.against!r}"] if question.against else []
        target = f"camlucida.targets.build_target({', '.join(own)})"
    elif question.class_ is not None and question.class_.isdecimal():
        target = question.class_
    lines = ["import camlucida", "", model.python(), "found = camlucida.explain("]
    lines += ["    model,", f"    {str(photo.path or photo.name)!r},", f"    method={methods!r},"]
    lines += [f"    target={target},"] if target != "None" else []
    lines += [f"    layers={question.layers!r},"] if question.layers else []
    lines += ['    steps="signed",'] if question.steps else []
    lines += [f"    seed={question.seed},"] if question.seed else []
    return "\n".join([*lines, ")", 'found.save("explanation.png")']) + "\n"


# ---- what the page sent --------------------------------------------------------------------------


def text(asked: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A text; raises ``CamlucidaError`` where it is none, or too long."""
    value = asked.get(name, default)
    value = default if value is None else value
    if not isinstance(value, str) or len(value) > _LONGEST or "\0" in value:
        raise CamlucidaError(f"{name} must be a text of at most {_LONGEST} letters")
    return value


def texts(asked: Mapping[str, Any], name: str, default: Sequence[str] = ()) -> tuple[str, ...]:
    """Several texts, each once; raises ``CamlucidaError`` where they are none."""
    values = asked.get(name, default)
    if not isinstance(values, list | tuple) or len(values) > 100:
        raise CamlucidaError(f"{name} must be a list of texts")
    return tuple(dict.fromkeys(text({name: value}, name) for value in values))


def number(asked: Mapping[str, Any], name: str, default: int = 0, most: int = 2**31) -> int:
    """A whole number from 0; raises ``CamlucidaError`` where it is none."""
    value = asked.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise CamlucidaError(f"{name} must be a whole number from 0 to {most}")
    return value
