"""One door to all data sets: ``kind``, ``kind:path,key=value,...`` or a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from camlucida.common.errors import CamlucidaError, TargetError
from camlucida.common.grammar import (
    Option,
    nearest,
    options_of,
    read_values,
    refuse_unknown,
    split_path,
)
from camlucida.data.folders import open_folder
from camlucida.data.samples import DataSet

Names = Sequence[str] | None


def open_data(
    spec: str | os.PathLike[str], *, class_names: Sequence[str] | None = None, **options: Any
) -> DataSet:
    """Open a data set.

    ===================  =======================================================================
    spec                 data
    ===================  =======================================================================
    a path               what lies there says which of the kinds below it is
    ``folder:PATH``      one folder per class; or photos without labels, where there are none
    ``imagenet:PATH``    ImageNet's validation images, with XML boxes
    ``csv:FILE``         a table with file, label and, where they are known, boxes and masks
    ``coco:PATH``        an instances file, or the folder that holds one
    ``voc:PATH``         VOC2007, VOC2012
    ``hf:NAME``          a data set of the package ``datasets``, or a folder that it saved
    ``digits``           digits on photos, with exact masks: made on the fly
    ``photos``           the labelled photos, with boxes drawn by hand
    ===================  =======================================================================

    Options follow after a comma: ``voc:data/VOCdevkit,year=2012,split=val``, ``digits,size=48``. Values with
    commas or equal signs are quoted. A path that exists as it stands has no options, whatever it holds. The
    bare words ``digits`` and ``photos`` mean these data also where a folder is called so, see :func:`namesake`;
    another bare word that is a kind means the folder of that name.

    Args:
        spec: what to open.
        class_names: the model's; ``None`` where it has none.
        options: as in the text, from Python; they win over those of the text.

    Raises:
        CamlucidaError: the kind or an option is unknown, or the data cannot be opened.
    """
    chosen, path, written = parse(os.fspath(spec))
    kind = _KINDS[chosen]
    refuse_unknown(chosen, options, kind.options)
    values = read_values(chosen, written, kind.options) | options
    if kind.needs_path and not path:
        raise CamlucidaError(f"{chosen} needs a path or name: {chosen}:PATH")
    if not kind.needs_path and path:
        raise CamlucidaError(f"{chosen} takes no path, got {path!r}; options follow after a comma")
    return kind.opener(*((path,) if kind.needs_path else ()), class_names, **values)


def namesake(spec: str) -> str:
    """What to tell a user whose own file or folder is called like the data set that a text names.

    Returns:
        A sentence; empty where nothing can be mistaken.
    """
    name = spec.strip().partition(",")[0].rstrip()
    if name not in _KINDS or _KINDS[name].needs_path or not _exists(name):
        return ""
    return (
        f"{name!r} is camlucida's own data set here, not the file or folder of that name; write ./{name} "
        "for yours"
    )


def parse(spec: str) -> tuple[str, str, dict[str, str]]:
    """Take a text apart.

    Returns:
        The kind, the path or name (empty where there is none), and the options as text.

    Raises:
        CamlucidaError: there is no such path and no such kind, or an option comes twice.
    """
    text = spec.strip()
    if not text:
        raise CamlucidaError(f"no data was named; give a path, or one of {', '.join(_KINDS)}")
    bare = text in _KINDS and not _KINDS[text].needs_path
    if not bare and _exists(text):
        return kind_of(Path(text)), text, {}
    text, options = split_path(text)
    kind, colon, path = text.partition(":")
    if kind in _KINDS:
        path = path.strip()
        if len(path) > 1 and path[0] == path[-1] and path[0] in "\"'":
            path = path[1:-1]
        return kind, path, options
    if not _exists(text):
        near = nearest(kind, _KINDS)
        raise CamlucidaError(
            f"{spec!r} is neither a path that exists nor one of the kinds {', '.join(_KINDS)}"
            f"{near}{'' if colon or near else '; kinds are written kind:path,option=value'}"
        )
    return kind_of(Path(text)), text, options


def kind_of(path: Path) -> str:
    """Which kind of data lies at a path.

    Raises:
        CamlucidaError: it is a file of no known kind.
    """
    from camlucida.data.huggingface import is_saved
    from camlucida.data.imagenet import is_imagenet
    from camlucida.data.voc import is_voc

    if path.is_file():
        suffix = path.suffix.lower()
        kind = {".csv": "csv", ".tsv": "csv", ".json": "coco"}.get(suffix)
        if kind is None:
            raise CamlucidaError(
                f"{str(path)!r} is a file of no known kind; expected a folder, a .csv or .tsv table, or "
                "a COCO .json file"
            )
        return kind
    if is_saved(path):
        return "hf"
    if is_voc(path):
        return "voc"
    if any(path.glob("annotations/instances_*.json")) or any(path.glob("instances_*.json")):
        return "coco"
    return "imagenet" if is_imagenet(path) else "folder"


# ---- the kinds ----------------------------------------------------------------------------------


def open_digits(
    class_names: Names,
    *,
    split: Literal["train", "test"] = "test",
    count: int | None = None,
    size: int = 64,
    seed: int = 0,
    second: bool = False,
) -> DataSet:
    """Digits on photos, for a model whose ten classes are the digits.

    Raises:
        TargetError: the model has other classes.
    """
    from camlucida.data.digits import CLASS_NAMES, Digits

    if class_names is not None and tuple(class_names) != CLASS_NAMES:
        raise TargetError(
            f"digits has the ten classes 0 to 9, but the model has {len(class_names)} others, beginning with "
            f"{class_names[0]!r}; use the model 'digits', or give it the class names 0 to 9"
        )
    return Digits(split, count=count, size=size, seed=seed, second=second)


def _photos(class_names: Names) -> DataSet:
    from camlucida.data.labelled import open_photos

    return open_photos(class_names)


@dataclass(frozen=True)
class _Kind:
    """How a kind is opened; its options are the keyword-only arguments of the opener."""

    opener: Callable[..., DataSet]
    needs_path: bool = True

    @property
    def options(self) -> dict[str, Option]:
        return options_of(self.opener)


def _kinds() -> dict[str, _Kind]:
    from camlucida.data.coco import open_coco
    from camlucida.data.csv_list import open_csv
    from camlucida.data.huggingface import open_huggingface
    from camlucida.data.imagenet import open_imagenet
    from camlucida.data.voc import open_voc

    return {
        "folder": _Kind(open_folder),
        "imagenet": _Kind(open_imagenet),
        "csv": _Kind(open_csv),
        "coco": _Kind(open_coco),
        "voc": _Kind(open_voc),
        "hf": _Kind(open_huggingface),
        "digits": _Kind(open_digits, needs_path=False),
        "photos": _Kind(_photos, needs_path=False),
    }


_KINDS = _kinds()
KINDS = tuple(_KINDS)
"""What can be written before the colon."""


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False
