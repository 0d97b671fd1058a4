"""One door to all data sets: ``kind``, ``kind:path,key=value,...`` or a path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import is_there
from camlucida.common.grammar import nearest, read_values, refuse_unknown, split_path
from camlucida.common.optional import first_line
from camlucida.data.coco import is_coco, open_coco
from camlucida.data.csv_list import CsvList, is_table
from camlucida.data.digits import open_digits
from camlucida.data.folders import open_folder
from camlucida.data.huggingface import is_saved, open_huggingface
from camlucida.data.imagenet import is_imagenet, open_imagenet
from camlucida.data.kinds import KINDS, register
from camlucida.data.offline_photos import open_photos
from camlucida.data.planted import open_planted
from camlucida.data.samples import DataSet
from camlucida.data.voc import is_voc, open_voc

# A path without a kind is what the last of these that it fits says.
register("folder", fits=Path.is_dir)(open_folder)
register("imagenet", fits=is_imagenet)(open_imagenet)
register("csv", fits=is_table)(CsvList)
register("coco", fits=is_coco)(open_coco)
register("voc", fits=is_voc)(open_voc)
register("hf", fits=is_saved)(open_huggingface)
register("digits", needs_path=False, of_model=True)(open_digits)
register("photos", needs_path=False)(open_photos)
register("planted", of_model=True)(open_planted)


def open_data(
    spec: str | os.PathLike[str], *, class_names: Sequence[str] | None = None, **options: Any
) -> DataSet:
    """Open a data set, given as in ``camlucida evaluate DATA``.

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
    ``planted:NAME``     drawn scenes of which it is known what decides, for the model ``planted:NAME``
    ===================  =======================================================================

    Options follow after a comma: ``voc:data/VOCdevkit,year=2012,split=val``, ``digits,size=48``. Values with
    commas or equal signs are quoted. A path that exists as it stands has no options, whatever it holds. The
    bare words ``digits`` and ``photos`` mean these data also where a folder is called so, see :func:`namesake`;
    another bare word that is a kind means the folder of that name.

    Args:
        spec: what to open.
        class_names: the model's; ``None`` where it has none.
        options: the same options as in the text; they win over those of the text.

    Raises:
        CamlucidaError: the kind or an option is unknown, or the data cannot be opened.

    Example:
        >>> data = camlucida.data.open_data("photos")
        >>> data.name, data[-1].key, data[-1].label_name
        ('photos', 'lion.jpg', 'lion')
    """
    chosen, path, written = parse(os.fspath(spec))
    kind = KINDS[chosen]
    refuse_unknown(chosen, options, kind.settable)
    values = read_values(chosen, written, kind.settable) | options
    if kind.needs_path and not path:
        raise CamlucidaError(f"{chosen} needs a path or name: {chosen}:PATH")
    if not kind.needs_path and path:
        raise CamlucidaError(f"{chosen} takes no path, got {path!r}; options follow after a comma")
    try:
        return kind.make(*((path,) if kind.needs_path else ()), class_names, **values)
    except OSError as error:  # such as a name that is too long
        reason = error.strerror or type(error).__name__
        raise CamlucidaError(f"the data {spec!r} cannot be opened: {reason}") from error
    except CamlucidaError:
        raise
    except Exception as error:  # of a kind from outside
        made = f"{kind.make.__module__}.{kind.make.__qualname__}"
        raise CamlucidaError(
            f"the data {spec!r} cannot be opened: {made}, which opens data of the kind {chosen}, failed with "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error


def open_known(
    spec: str | os.PathLike[str], *, class_names: Sequence[str] | None = None
) -> DataSet:
    """The same as :func:`open_data`, also folders of classes that the model does not know.

    Photos of such folders have the name of their class and no label: they can be told apart and paired, but not
    be explained for it.

    Raises:
        CamlucidaError: the data cannot be opened.
    """
    is_folder = parse(os.fspath(spec))[0] == "folder"
    return open_data(spec, class_names=class_names, **({"unlabelled": True} if is_folder else {}))


def own_data(model: str) -> str | None:
    """The data set that belongs to the model of a name, such as ``"digits"``; ``None`` where there is none."""
    kind = model.partition(":")[0]
    return model if kind in KINDS.names and KINDS[kind].of_model else None


def namesake(spec: str) -> str:
    """What to tell a user whose own file or folder is called like the data set that a text names.

    Returns:
        A sentence; empty where nothing can be mistaken.
    """
    name = spec.strip().partition(",")[0].rstrip()
    if not _is_bare(name) or not is_there(Path(name)):
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
        raise CamlucidaError(f"no data was named; give a path, or one of {', '.join(KINDS.names)}")
    if not _is_bare(text) and is_there(Path(text)):
        return kind_of(Path(text)), text, {}
    text, options = split_path(text)
    kind, colon, path = text.partition(":")
    if kind in KINDS.names:
        path = path.strip()
        if len(path) > 1 and path[0] == path[-1] and path[0] in "\"'":
            path = path[1:-1]
        return kind, path, options
    if not is_there(Path(text)):
        near = nearest(kind, KINDS.names)
        raise CamlucidaError(
            f"{spec!r} is neither a path that exists nor one of the kinds {', '.join(KINDS.names)}"
            f"{near}{'' if colon or near else '; kinds are written kind:path,option=value'}"
        )
    return kind_of(Path(text)), text, options


def kind_of(path: Path) -> str:
    """Which kind of data lies at a path.

    Raises:
        CamlucidaError: it is a file of no known kind.
    """
    for kind in reversed(tuple(KINDS)):
        if kind.fits is not None and kind.fits(path):
            return kind.name
    raise CamlucidaError(
        f"{str(path)!r} is a file of no known kind; expected a folder, a .csv or .tsv table, or a COCO .json file"
    )


def _is_bare(text: str) -> bool:
    """Whether a text is the name of a kind that takes no path."""
    return text in KINDS.names and not KINDS[text].needs_path
