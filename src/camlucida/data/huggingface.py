"""Data sets of the package ``datasets``: by name, or from a folder that it saved."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.common.optional import first_line, require
from camlucida.data.class_names import Classes
from camlucida.data.images import read_image
from camlucida.data.samples import DataSet, Sample

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
_SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")


@dataclass(frozen=True)
class HubSample(Sample):
    """A row of a table whose image is decoded when it is asked for.

    Attributes:
        table: the rows, with undecoded images.
        row: which one.
        column: the image's column.
    """

    table: Any = field(default=None, repr=False, compare=False)
    row: int = 0
    column: str = "image"

    def picture(self) -> Image.Image:
        """The upright RGB photo.

        Raises:
            ImageError: it cannot be read.
        """
        try:
            cell = self.table[self.row][self.column] or {}
        except Exception as error:
            raise ImageError(f"row {self.row} cannot be read: {first_line(error)}") from error
        if cell.get("bytes") is None:
            if not cell.get("path"):
                raise ImageError(f"row {self.row} holds no image")
            return read_image(cell["path"])
        try:
            image = Image.open(io.BytesIO(cell["bytes"]), formats=_FORMATS)
        except Exception as error:  # Pillow raises many kinds for damaged files
            raise ImageError(
                f"the image of row {self.row} is damaged or of another kind"
            ) from error
        return read_image(image)


class HubTable(DataSet):
    """A table of images and, where it has them, labels.

    Args:
        name: what it is called.
        table: a ``datasets.Dataset``.
        class_names: the model's.
        image: the column of images; the first one unless told.
        label: the column of labels; the first column of class labels, else one called ``label``, unless told.

    Raises:
        CamlucidaError: there is no such column, or nothing to use.
        TargetError: the model knows none of the labels.
    """

    def __init__(
        self,
        name: str,
        table: Any,
        class_names: Sequence[str] | None,
        *,
        image: str | None = None,
        label: str | None = None,
    ) -> None:
        datasets = require("datasets", "data")
        self.name = name
        features = table.features
        images = [c for c, f in features.items() if isinstance(f, datasets.Image)]
        named = [c for c, f in features.items() if isinstance(f, datasets.ClassLabel)]
        self._image = _column(image, images, features, "image")
        usual = [c for c in ("label", "labels", "fine_label", "class") if c in features]
        self._label = (
            _column(label, named or usual, features, "label") if label or named or usual else None
        )
        self._table = table.cast_column(self._image, datasets.Image(decode=False))
        if self._label is None:
            self._rows = list(range(len(table)))
            self._labels: list[tuple[int | None, str]] = [(None, "")] * len(table)
            return
        values = table.with_format(None)[self._label][:]
        feature = features[self._label]
        classes = Classes(class_names)
        self._rows, self._labels = [], []
        for row, value in enumerate(values):
            word = _word(value, feature, class_names, datasets)
            found = classes.find(word) if word else None
            if found is not None or not word:
                self._rows.append(row)
                self._labels.append((found, word))
        self.skipped = tuple(classes.skipped(Path(name), "row"))
        if not self._rows and classes.reason():
            raise TargetError(f"the model knows none of the labels of {name}: {classes.reason()}")
        if not self._rows:
            raise CamlucidaError(f"{name} has no rows")

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int) -> HubSample:
        """The sample at a position."""
        row = self._rows[index]
        label, word = self._labels[index]
        return HubSample(
            f"row-{row:08d}", label, word, table=self._table, row=row, column=self._image
        )


def open_huggingface(
    name: str,
    class_names: Sequence[str] | None,
    *,
    split: str | None = None,
    config: str | None = None,
    image: str | None = None,
    label: str | None = None,
) -> HubTable:
    """Open a data set of the package ``datasets``; code that a data set brings is never run.

    Args:
        name: its name on the hub, or a folder written by ``save_to_disk``.
        class_names: the model's.
        split: ``validation``, else ``test``, else the only one, unless told.
        config: which of its configurations.
        image: the column of images.
        label: the column of labels.

    Raises:
        CamlucidaError: the package is missing, the data cannot be loaded, or a column or split does not exist.
    """
    datasets = require("datasets", "data")
    try:
        if is_saved(Path(name)):
            found = datasets.load_from_disk(name)
        else:
            # before version 4, which cannot run a data set's code at all, the answer had to be given
            old = int(str(datasets.__version__).split(".")[0]) < 4
            found = datasets.load_dataset(
                name, config, **({"trust_remote_code": False} if old else {})
            )
    except Exception as error:
        raise CamlucidaError(
            f"the data set {name!r} cannot be loaded: {first_line(error)}; give its name on the hub, or a "
            "folder that datasets' save_to_disk wrote"
        ) from error
    chosen = ""
    if isinstance(found, dict):
        splits = list(found)
        usual = [s for s in ("validation", "val", "test") if s in splits] or splits
        chosen = split or (usual[0] if len(usual) == 1 or usual != splits else "")
        if chosen not in splits:
            raise CamlucidaError(f"{name!r} has no split {chosen!r}; there are {', '.join(splits)}")
        found = found[chosen]
    elif split is not None:
        raise CamlucidaError(f"{name!r} has no splits; leave out split={split}")
    title = f"{Path(name).name}:{chosen}" if chosen else Path(name).name
    return HubTable(title, found, class_names, image=image, label=label)


def is_saved(root: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``."""
    return any((root / file).is_file() for file in _SAVED)


def _column(chosen: str | None, fitting: Sequence[str], features: Any, what: str) -> str:
    if chosen is not None and chosen in features:
        return chosen
    if chosen is None and fitting:
        return fitting[0]
    wanted = f"no column {chosen!r}" if chosen else f"no {what} column"
    raise CamlucidaError(f"the data set has {wanted}; its columns are {', '.join(features)}")


def _word(value: Any, feature: Any, class_names: Sequence[str] | None, datasets: Any) -> str:
    """A label as text: its name where the model has names, else its number; empty where there is none."""
    if value is None or value == -1:
        return ""
    if isinstance(feature, datasets.ClassLabel) and class_names:
        return str(feature.int2str(value))
    return str(value)
