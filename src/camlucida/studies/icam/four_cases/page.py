"""The tables and the page of the four cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camlucida.common.printable import name_of
from camlucida.explanation import overlays
from camlucida.explanation.diagnostics import CASES
from camlucida.report import Column, Document, Section, Table
from camlucida.report.page import Strip, Tile, bullets, paragraph, picture, strips
from camlucida.studies.icam.four_cases.patchiness import HIGH, VARIANTS

if TYPE_CHECKING:
    from camlucida.studies.icam.four_cases.study import CasePhoto, CaseStudy, Dial

_PATCHINESS = (
    f"The authors of I-CAM see patchy maps above a confidence of {HIGH}. Patchiness is Geary's C of the map averaged "
    "to 28 × 28 cells: 0 is smooth, 1 is without order. Each map is computed in four ways with the same layer weights: "
    "“exact”, with the bias kept apart in double precision; with the “float32 bias” added to every cell, as the "
    "equations are printed; and both without alpha, which has the poles. What remains without alpha is the model's own."
)


def cases_table(study: CaseStudy) -> Table:
    """Means of each case."""
    boxes = any(photo.saliency is not None for photo in study.photos)
    in_boxes = {
        "saliency": Column("of the map in the box", places=3),
        "with_boxes": Column("photos with boxes", places=0),
    }
    patchy = {"patchiness": Column("patchiness", places=3)}
    return Table.of(
        "cases",
        "Means of each case",
        [{**row, "case": CASES[row["case"]]} for row in study.table()],
        {
            "case": Column("case"),
            "photos": Column("photos", places=0),
            "confidence": Column("confidence", places=3),
            **(in_boxes if boxes else {}),
            "islands": Column("bright spots on the map", places=1),
            **(patchy if study.has_numerics else {}),
        },
    )


def patchiness_tables(study: CaseStudy) -> list[Table]:
    """Patchiness against confidence: over the photos, and with the confidence dialled."""
    over_photos = Table.of(
        "patchiness",
        "Patchiness and confidence, over the photos",
        study.patchy(),
        {
            "variant": Column("computed"),
            "spearman": Column("rank correlation", places=2, note="of patchiness with confidence"),
            "above": Column(f"above {HIGH}", places=3),
            "above_photos": Column("photos", places=0),
            "below": Column(f"up to {HIGH}", places=3),
            "p": Column("p", places=3, note="of a permutation test of their difference"),
            "same": Column(
                "like exact", places=4, note="correlation of the map with the exact one"
            ),
            "levels": Column(
                "values per cell", places=2, note="different values, of the layer maps"
            ),
            "constant_maps": Column("constant maps", places=0),
        },
    )
    return [over_photos, *(_dialled(study.dial) if study.dial is not None else ())]


def _dialled(dial: Dial) -> list[Table]:
    found = []
    for what, title in (
        ("patchiness", "Patchiness"),
        ("same", "Correlation with the exact map"),
        ("levels", "Different values per cell of the layer maps"),
    ):
        rows = [{"computed": v, **dict(enumerate(getattr(dial, what)[v]))} for v in VARIANTS]
        if what == "patchiness":
            rows += [
                {"computed": f"{v}: constant maps", **dict(enumerate(dial.constant[v]))}
                for v in VARIANTS
                if sum(dial.constant[v])
            ]
            rows.append({"computed": "entries beyond a pole", **dict(enumerate(dial.pole_share))})
        columns = {i: Column(f"{c:g}", digits=3) for i, c in enumerate(dial.confidences)}
        caption = (
            f"{title}, mean of {dial.images} photos, with the confidence dialled by a constant added to the explained "
            "logit"
        )
        found.append(
            Table.of(f"dialled-{what}", caption, rows, {"computed": Column("computed"), **columns})
        )
    return found


def study_page(study: CaseStudy, most: int) -> str:
    """The page, see :meth:`camlucida.studies.icam.four_cases.study.CaseStudy.html`."""
    sections = []
    for case, title in sorted(CASES.items(), key=lambda item: not item[0].endswith("wrong")):
        found = study.of(case)
        parts: list[str | Table] = [strips([_strip(photo) for photo in found[:most]])]
        if not found:
            parts = [paragraph("None.")]
        elif len(found) > most:
            parts.insert(0, paragraph(f"The {most} clearest are shown.", note=True))
        sections.append(Section(case, f"{title.capitalize()} ({len(found)})", parts))
    left_out = [paragraph("Left out:", note=True), bullets([r for _, r in study.skipped])]
    sections += _numerics(study)
    lead = (
        f"{len(study.photos)} photos; a prediction is confident from a probability of {study.threshold} on. Each photo "
        f"is beside its map by {study.method['method']}: dark is 0, light is 1."
    )
    if any(photo.saliency is not None for photo in study.photos):
        lead += " White frames are the given boxes."
    if study.selection:
        named = ", ".join(f"{n.partition(',')[0]} {f1:.2f}" for n, f1 in study.selection.items())
        lead += f" Of the classes of highest F1 ({named}), the most confident photos of each were taken."
    if any(side.nearest for photo in study.photos for side in photo.sides):
        lead += (
            " Beside a wrong prediction stand the training photos that are nearest in what the maps mark, of the "
            "predicted and of the true class."
        )
    title = f"Where {study.model} looked, in four cases"
    parts = [cases_table(study), *(left_out if study.skipped else [])]
    return Document(title, [lead], sections, parts=parts, sortable=False).html()


def _numerics(study: CaseStudy) -> list[Section]:
    """The study of what I-CAM's numerics do to its maps, where it was made."""
    if not study.has_numerics:
        return []
    alt = "Patchiness against confidence; the numbers are in the tables below."
    return [
        Section(
            "patchiness",
            "For research: I-CAM's numerics, patchiness and confidence",
            [
                paragraph(_PATCHINESS),
                picture(overlays.png(study.figure()), alt),
                *patchiness_tables(study),
            ],
        )
    ]


def _strip(photo: CasePhoto) -> Strip:
    name = name_of(photo.file)
    said, true = (c.partition(",")[0] for c in (photo.predicted_class, photo.true_class))
    told = [
        f"{name}: said {said} ({100 * photo.confidence:.1f} %), is {true}",
        *(
            []
            if photo.saliency is None
            else [f"{100 * photo.saliency:.0f} % of the map in the box"]
        ),
        f"the map explains {photo.explained}",
        *photo.messages,
    ]
    tiles = [Tile("the photo", "", f"{name} as the model sees it", photo.seen)]
    if photo.mapped not in [side.mapped for side in photo.sides]:
        tiles.append(Tile("its map", "", f"map of {name} for {photo.explained}", photo.mapped))
    for side in photo.sides:
        of = side.class_name.partition(",")[0]
        words = f"{side.role}: {of}"
        tiles.append(Tile(f"for the {words}", "", f"map of {name} for {of}", side.mapped))
        for near in side.nearest:
            file = name_of(near.file)
            title = f"near, {words}"
            told_of = f"{file}, distance {near.distance:.3f}"
            tiles.append(Tile(title, told_of, f"training photo {file}", near.seen))
            tiles.append(Tile("its map", "", f"map of {file} for its class", near.mapped))
    return Strip(f"{'; '.join(told)}.", tuple(tiles))
