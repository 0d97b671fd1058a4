"""The labelled photos: real pictures with ImageNet labels and boxes, to be had offline.

Twenty photos come with the package foolbox (found as files; it is not imported), six with this one. Those
whose label is wrong or open to doubt are left out. The boxes were drawn by hand for camlucida
(``photos/boxes.csv``, see ``photos/ORIGIN.md``): they are ours, not ImageNet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from camlucida.common.errors import TargetError
from camlucida.data.classes import Classes
from camlucida.data.samples import Sample, SampleList, Skipped
from camlucida.data.tables import read_boxes

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
    own = Path(str(files("camlucida.data") / "photos"))
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
