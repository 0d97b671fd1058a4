"""Real photos that are there offline: the pictures of the package, and the labelled photos.

Six pictures come with this package (``photos/ORIGIN.md`` says where each is from, and its licence), twenty with the
package foolbox (found as files; it is not imported). The labelled photos are those of both whose ImageNet label is
beyond doubt. Their boxes were drawn by hand for camlucida (``photos/boxes.csv``): they are ours, not ImageNet's.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from camlucida.common.errors import ImageError, TargetError
from camlucida.data.class_names import Classes
from camlucida.data.samples import Sample, SampleList, Skipped
from camlucida.data.tables import read_boxes

_FOLDER = Path(str(files("camlucida.data") / "photos"))

_PICTURES = {
    "chelsea": "the face of a tabby cat",
    "cheetah": "a cheetah, head and chest",
    "coffee": "a cup of espresso with a spoon, on a wooden table",
    "lion": "a lion lying on a rock, a lioness behind it",
    "rocket": "a rocket at lift-off, between lightning towers",
    "tower": "the Eiffel Tower at dusk, branches above it",
}


@dataclass(frozen=True)
class Picture(os.PathLike[str]):
    """A picture of the package; usable wherever a path is.

    Attributes:
        name: What it is called, as in `picture_names`.
        label: What is to be seen in it, in a few words.
        path: The JPEG file.

    Example:
        >>> camlucida.data.picture("lion").label
        'a lion lying on a rock, a lioness behind it'
    """

    name: str
    label: str
    path: Path

    def __fspath__(self) -> str:
        """The path as a string, for `open` and `read_image`."""
        return str(self.path)


def picture_names() -> tuple[str, ...]:
    """The names of all pictures, sorted.

    Example:
        >>> camlucida.data.picture_names()[:3]
        ('cheetah', 'chelsea', 'coffee')
    """
    return tuple(sorted(_PICTURES))


def picture(name: str) -> Picture:
    """One picture of the package.

    Args:
        name: One of `picture_names`.

    Returns:
        The picture, which is a path that also has a name and a label.

    Raises:
        ImageError: There is no picture of that name.

    Example:
        >>> camlucida.data.read_image(camlucida.data.picture("coffee")).mode
        'RGB'
    """
    if name not in _PICTURES:
        near = difflib.get_close_matches(name.lower(), _PICTURES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(picture_names())}"
        raise ImageError(f"no picture is called {name!r}; {hint}")
    return Picture(name, _PICTURES[name], _FOLDER / f"{name}.jpg")


# ---- the labelled photos ---------------------------------------------------------------------------

LABELS = {
    "imagenet_00_243.jpg": (243, "bull mastiff"),
    "imagenet_01_559.jpg": (559, "folding chair"),
    "imagenet_02_438.jpg": (438, "beaker"),
    "imagenet_03_990.jpg": (990, "buckeye"),
    "imagenet_04_949.jpg": (949, "strawberry"),
    "imagenet_05_853.jpg": (853, "thatch"),
    "imagenet_06_609.jpg": (609, "jeep"),
    "imagenet_07_609.jpg": (609, "jeep"),
    "imagenet_08_915.jpg": (915, "yurt"),
    "imagenet_09_455.jpg": (455, "bottlecap"),
    "imagenet_10_541.jpg": (541, "drum"),
    "imagenet_11_630.jpg": (630, "Loafer"),
    "imagenet_13_471.jpg": (471, "cannon"),
    "imagenet_15_99.jpg": (99, "goose"),
    "imagenet_16_251.jpg": (251, "dalmatian"),
    "imagenet_17_22.jpg": (22, "bald eagle"),
    "imagenet_18_317.jpg": (317, "leafhopper"),
    "imagenet_19_305.jpg": (305, "dung beetle"),
    "cheetah.jpg": (293, "cheetah"),
    "coffee.jpg": (967, "espresso"),
    "lion.jpg": (291, "lion"),
}
"""ImageNet class and name of each photo.

Left out: foolbox's 12 (a window, labelled as a prayer rug) and 14 (ibises, labelled as spoonbills); our
chelsea (tabby or tiger cat?), rocket (missile or projectile?) and tower (no class)."""


def open_photos(class_names: Sequence[str] | None) -> SampleList:
    """The labelled photos; three of the 21 if foolbox is not installed.

    Args:
        class_names: the model's. With 1000, or none, they are taken to be ImageNet's; other models must know
            a photo's class by its name.

    Raises:
        TargetError: the model knows none of the classes.
    """
    own = _FOLDER
    boxes = read_boxes(own / "boxes.csv")
    elsewhere = _foolbox()
    imagenet = class_names is None or len(class_names) == 1000
    classes = Classes(class_names)
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for name, (number, word) in LABELS.items():
        folder = elsewhere if name.startswith("imagenet_") else own
        if folder is None or not (folder / name).is_file():
            skipped.append(
                (Path(name), "comes with the package foolbox; pip install foolbox==3.3.4")
            )
            continue
        label = number if imagenet else classes.find(word)
        if label is not None:
            samples.append(Sample(name, label, word, folder / name, boxes[name]))
    if not samples:
        raise TargetError(f"the model knows none of the photos' classes: {classes.reason()}")
    skipped += classes.skipped(own)
    return SampleList("photos", samples, skipped)


def _foolbox() -> Path | None:
    """The folder of foolbox's pictures."""
    try:
        return Path(str(metadata.distribution("foolbox").locate_file("foolbox/data")))
    except metadata.PackageNotFoundError:
        return None
