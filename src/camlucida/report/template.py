"""Web pages in one file: pictures inside, nothing fetched."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image


def page(template: str, *, package: str = "camlucida.report", **values: Any) -> str:
    """A page from a template of a package.

    Text is escaped, and undefined names are errors.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return str(environment.get_template(template).render(**values))


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that holds them, ``kind`` such as ``"image/png"``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def jpeg(picture: Image.Image, quality: int = 85) -> bytes:
    """A picture as JPEG bytes, without metadata."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
