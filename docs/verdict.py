"""Draw the README's picture: two maps of a photo whose lower quarter the model cannot see, and the verdict on each.

Run with: python docs/verdict.py
"""

from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

import camlucida
from camlucida.audits import Wall, audit_dead_zone
from camlucida.explanation import overlays

WALL, FIRST = "rows:168-223", 168
METHODS = ["gradcam++", "saliency"]
SIDE = 448


def main() -> None:
    """Write verdict.jpg beside this file."""
    model = camlucida.load_model("embedded")
    photos = [camlucida.data.picture(name) for name in camlucida.data.picture_names()]
    report = audit_dead_zone(model, photos, wall=WALL, methods=METHODS)
    blind = replace(model, module=Wall.parse(WALL).build(model.module))
    maps = camlucida.explain(blind, photos, method=METHODS)
    behind = maps[METHODS[0]].maps[:, FIRST:].sum((1, 2)) / maps[METHODS[0]].maps.sum((1, 2))
    shown = int(behind.argmax())
    top = round(SIDE * FIRST / maps[METHODS[0]].maps.shape[1])
    seen = maps[METHODS[0]].seen(shown, longest=SIDE).picture.convert("RGB")
    seen.paste((40, 40, 40), (0, top, *seen.size))
    pictures, columns = [seen], ["what the model sees"]
    for name, one in maps.items():
        drawn = one.overlay(shown, whole=False).resize(seen.size, Image.Resampling.LANCZOS)
        ImageDraw.Draw(drawn).line((0, top, drawn.width, top), "white", 2)
        found = report[name]
        pictures.append(drawn)
        columns.append(f"{name}: {found.outcome}, {found.value:.1%} below the wall")
    figure = overlays.grid([pictures], columns=columns, bar=None, cell=3.4)
    path = Path(__file__).with_name("verdict.jpg")
    figure.savefig(path, dpi=110, bbox_inches="tight", pil_kwargs={"quality": 88})
    print(path.name, *(v.text for v in report.verdicts), sep="\n")


if __name__ == "__main__":
    main()
