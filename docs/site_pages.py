"""What the site takes from the package: pages of the registries and rooms, pictures of every method, formulas."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latex2mathml.converter import convert
from PIL import Image

import camlucida
from camlucida.methods import MethodRow
from camlucida.metrics.registry import range_in_words

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

BUILT = Path(__file__).parent / "built"
PHOTOS = ("chelsea", "cheetah", "coffee")
ROOMS = (
    "targets", "report", "engine", "data", "models", "methods", "explanation", "metrics", "benchmark",
    "training", "faces", "audits", "studies.fame", "studies.icam", "studies.published", "studies.survey", "app",
)  # fmt: skip


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("builder-inited", write_pages, priority=100)
    app.connect("autodoc-process-docstring", formulas)
    app.connect("source-read", without_papers)
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def without_papers(app: Sphinx, name: str, source: list[str]) -> None:
    """The page of papers is listed where it is there."""
    if name == "index" and not Path(app.srcdir, "papers.md").is_file():
        source[0] = source[0].replace("\npapers\n", "\n")


# ---- formulas -----------------------------------------------------------------------------------


def formulas(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """``$...$`` in a docstring as a formula."""
    text = re.sub(
        r"\$([^$]+)\$", lambda found: f":math:`{' '.join(found[1].split())}`", "\n".join(lines)
    )
    lines[:] = text.split("\n")


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    _skip()


def _display(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(convert(node.astext(), display="block"))
    _skip()


def _skip() -> None:
    from docutils.nodes import SkipNode

    raise SkipNode


# ---- pictures -----------------------------------------------------------------------------------


_DRAWN: list[Any] = [None]


def scrape(_block: object, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The picture of a tutorial's last value, where it draws itself."""
    from sphinx_gallery.scrapers import figure_rst

    value = block_vars["example_globals"].get("___")
    if not hasattr(value, "_repr_png_") or value is _DRAWN[-1]:  # of an earlier block
        return ""
    _DRAWN.append(value)
    path = Path(next(block_vars["image_path_iterator"]))
    path.write_bytes(value._repr_png_())
    return figure_rst([str(path)], gallery_conf["src_dir"])


def draw(row: MethodRow) -> tuple[str, str]:
    """A method's picture of the photos that all methods are drawn on, and how it was made; or why there is none.

    What was drawn by the same code stays.
    """
    file = BUILT / "pictures" / f"{_slug(row.name)}.jpg"
    file.parent.mkdir(parents=True, exist_ok=True)
    options = ",".join(f"{key}={_word(value)}" for key, value in row.quick.items())
    name = f"{row.name}:{options}" if options else row.name
    made = file.with_suffix(".json")
    by = f"{name} {camlucida.__version__} {_hash(inspect.getsource(inspect.getmodule(row.make)))}"  # type: ignore[arg-type]
    if made.is_file() and (known := json.loads(made.read_text("utf-8")))["by"] == by:
        return known["picture"], known["how"]
    drawn, how = _drawn(row, name, file)
    made.write_text(json.dumps({"by": by, "picture": drawn, "how": how}), "utf-8")
    return drawn, how


def _drawn(row: MethodRow, name: str, file: Path) -> tuple[str, str]:
    # With a pass of the whole model for each channel one photo has to do.
    photos = PHOTOS[:1] if "channels" in row.cost.times and row.cost.forward else PHOTOS
    started = time.perf_counter()
    try:
        if "reference embedding" in row.needs:
            embedder = camlucida.faces.load_embedder("dlib")
            found: Any = camlucida.faces.explain_pair(
                embedder, *camlucida.faces.demo_photos()[:2], method=name
            )
            images, of = 2, "two pictures of one face, dlib's embedder"
        else:
            pictures = [camlucida.data.picture(photo) for photo in photos]
            found = camlucida.explain(camlucida.load_model("embedded"), pictures, method=name)
            images, of = len(photos), "the embedded EfficientNet-Lite0"
    except camlucida.CamlucidaError as error:
        return "", f"Not drawn here: {error}."
    seconds = (time.perf_counter() - started) / images
    Image.open(io.BytesIO(found._repr_png_())).convert("RGB").save(file, quality=85)
    how = f"`{name}`, {of}: {seconds:.2g} s a picture on the processor that built this page."
    return f"../pictures/{file.name}", how


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- pages --------------------------------------------------------------------------------------


def write_pages(app: Sphinx) -> None:
    """Everything that follows from the package, as sources of the site."""
    quick = app.tags.has("quick")
    made = dict(_pages(lambda row: ("", "") if quick else draw(row)))
    for path in BUILT.rglob("*.md"):
        if path.relative_to(BUILT).with_suffix("").as_posix() not in made:
            path.unlink()  # of a method or room that is gone
    for name, text in made.items():
        path = BUILT / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or _hash(path.read_text("utf-8")) != _hash(text):
            path.write_text(text, "utf-8")


def _pages(picture: Callable[[MethodRow], tuple[str, str]]) -> Iterator[tuple[str, str]]:
    rows = [row for row in camlucida.list_methods() if not row.control]
    facts = [
        (f"[{row.name}](methods/{_slug(row.name)}.md)", row.use, row.cost_in_words) for row in rows
    ]
    shown = []
    for row in rows:
        drawn, how = picture(row)
        yield f"methods/{_slug(row.name)}", _method(row, drawn, how)
        if drawn:
            link = f"methods/{_slug(row.name)}.md"
            shown.append(
                f"## [{row.name}]({link})\n\n{row.use}\n\n**Not:** {_not_for(row)}\n\n"
                f"**Costs:** {row.cost_in_words}. {how}\n\n![{row.name}]({drawn.removeprefix('../')})"
            )
    others = [
        (f"`{row.name}`", row.use or _text(row.summary), row.source_in_words)
        for row in camlucida.list_methods(libraries=True)
    ]
    yield "methods", "\n\n".join([
        "# All methods",
        (
            "From the registry, as `camlucida methods` prints it. Each has its page; [the gallery](gallery.md) shows "
            "all of them on the same photos, and [methods, targets, steps](../methods.md) says what holds for all."
        ),
        _table(("method", "when to take it", "passes for one image"), facts),
        'The explainers of other libraries are methods too, computed by these: `pip install "camlucida[peers]"`.',
        _table(("method", "what", "source"), others),
        "```{toctree}\n:hidden:\n\n" + "\n".join(f"methods/{_slug(row.name)}" for row in rows) + "\n```",
    ])  # fmt: skip
    yield "gallery", "\n\n".join([
        "# Gallery: every method on the same photos",
        (
            "The same three photos, the same model, the predicted class; methods on faces have two pictures of one "
            "face. Methods of many passes are drawn with the options of a quick run, which stand beside the picture."
        ),
        *(shown or ["The pictures are drawn by `make docs`; this is a quick build without them."]),
    ])  # fmt: skip
    yield "metrics", _metrics()
    yield (
        "targets",
        _registry(
            "Targets",
            "The numbers that can be explained: `--target NAME:key=value`.",
            camlucida.list_targets(),
        ),
    )
    yield (
        "data",
        _registry(
            "Kinds of data",
            "What stands before the colon: `kind:path,option=value`.",
            camlucida.list_data(),
        ),
    )
    yield "audits", "\n\n".join([
        "# Registered audits",
        (
            "What `camlucida audit all` asks; each is also a command, `camlucida audit NAME`. [Audits](../audits.md) "
            "says how they are decided."
        ),
        _table(("audit", "title", "question"), ((f"`{r.name}`", r.title, r.asks) for r in camlucida.list_audits())),
    ])  # fmt: skip
    for room in ROOMS:
        yield f"reference/{room}", _room(room)
    yield "reference", "\n\n".join([
        "# Reference",
        (
            "One page a room, from the docstrings. What most people need stands in `camlucida` itself; each name is on "
            "the page of its room."
        ),
        "```{toctree}\n" + "\n".join(f"reference/{room}" for room in ROOMS) + "\n```",
    ])  # fmt: skip


def _method(row: MethodRow, drawn: str, how: str) -> str:
    page = camlucida.describe_method(row.name)
    options = ((f"`{o.name}`", f"`{_word(o.default)}`", o.allowed, o.text) for o in page.options)
    parts = [
        f"# {row.name}",
        row.use,
        f"**When not:** {_not_for(row)}",
        _table(
            ("", ""),
            [
                ("source", row.source_in_words),
                ("needs", row.needs_in_words),
                ("passes for one image", row.cost_in_words),
                *([("remark", row.remark)] if row.remark else []),
            ],
        ),
        f"![{row.name}]({drawn})\n\n{how}" if drawn else how,
        "## Formula",
        _auto("autoclass", row.make),
    ]
    if page.options:
        parts += ["## Options", _table(("option", "default", "may be", "what it does"), options)]
    return "\n\n".join(filter(None, parts))


def _not_for(row: MethodRow) -> str:
    """When not to take a method, from its facts."""
    said = []
    if not row.discriminative:
        said.append("to tell classes apart: its map is the same for every class")
    if row.weights == "channel":
        said.append(
            "where places that the model ignores must stay dark: it weighs whole channels, and so can see through walls"
        )
    if row.local:
        said.append("to know what was used: it shows what a very small change would do")
    if row.scale == "own":
        said.append("to compare strengths between photos: it scales each map itself")
    if row.cost.times:
        said.append("when time is short")
    hard = [need for need in row.needs if need not in {"gradients", "pixel gradients"}]
    if hard:
        said.append(f"on a model without {' and '.join(hard)}")
    return f"{'; '.join(said)}." if said else "no reason in the registry."


def _metrics() -> str:
    parts = [
        "# Metrics",
        "From the registry, as `camlucida metrics` prints it. A run takes them as `--metric NAME:key=value`.",
    ]
    for row in camlucida.list_metrics():
        limits = range_in_words(row.range) + (f" {row.unit}" if row.unit else "")
        better = {
            "higher": "higher is better",
            "lower": "lower is better",
            "none": "describes, does not judge",
        }
        facts = [
            ("what it asks", row.question),
            ("range", f"{limits}; {better[row.direction]}"),
            ("source", row.source),
            ("needs", ", ".join(row.needs) or "nothing but the map"),
            ("cost", str(row.cost)),
            *([("remark", row.remark)] if row.remark else []),
        ]
        parts += [f"## {row.name}", _table(("", ""), facts), _auto("autoclass", row.make)]
        if inspect.isroutine(number := getattr(camlucida.metrics, row.name, None)):
            parts.append(_auto("autofunction", number))
    return "\n\n".join(parts)


def _registry(title: str, lead: str, rows: Iterable[Any]) -> str:
    parts = [f"# {title}", lead]
    for row in rows:
        options = [
            (f"`{name}`", f"`{_word(option.default)}`") for name, option in row.settable.items()
        ]
        kind = "autoclass" if inspect.isclass(row.make) else "autofunction"
        parts += [
            f"## {row.name}",
            _text(row.summary) if kind == "autofunction" else _auto(kind, row.make),
        ]
        if options:
            parts.append(_table(("option", "default"), options))
    return "\n\n".join(parts)


def _auto(directive: str, thing: Any) -> str:
    """A class with its docstring; the room's page is where links to it lead."""
    name = f"{thing.__module__}.{thing.__qualname__}"
    return f"```{{eval-rst}}\n.. {directive}:: {name}\n   :no-index:\n```"


def _room(room: str) -> str:
    module = import_module(f"camlucida.{room}")
    lines = [
        f"# camlucida.{room}",
        "```{eval-rst}",
        f".. automodule:: camlucida.{room}",
        "   :no-members:",
        "",
    ]
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            lines += [f".. autoclass:: camlucida.{room}.{name}", "   :members:", ""]
        elif inspect.isroutine(value):
            lines += [f".. autofunction:: camlucida.{room}.{name}", ""]
        else:
            lines += [f".. py:data:: camlucida.{room}.{name}", ""]
    return "\n".join([lines[0], "", *lines[1:], "```"])


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split())


def _text(summary: str) -> str:
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?([\w=]+)`", r"`\1`", summary).replace("``", "`")


def _slug(name: str) -> str:
    return name.replace("++", "pp").replace(":", "-")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
