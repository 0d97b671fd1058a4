"""Check a built site: inner links lead somewhere, nothing is fetched from elsewhere, words are spelt right.

Run with: python docs/check.py FOLDER
"""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

DOCS = Path(__file__).parent
LOADED = {"src", "srcset", "data", "poster"}
READ = ("*.md", "docs/**/*.md", "docs/tutorials/*", "llms.txt")


class Page(HTMLParser):
    """What a page links to, what it loads, and the places in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.places: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of each element its place and where it leads."""
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            elif name == "href" and tag == "link" and value:
                self.loaded.add(value)
            elif name == "href" and value:
                self.links.add(value)
            elif name in LOADED and value:
                self.loaded.add(value)


def faults(site: Path) -> list[str]:
    """What is wrong with a site, one line each."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for link in sorted(page.links | page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    found.append(f"{name}: loads {link} from elsewhere")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{name}: {link} leads nowhere")
            elif (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].places
            ):
                found.append(f"{name}: there is no {link}")
    for path in [*site.rglob("*.css"), *site.rglob("*.js")]:
        text = path.read_text("utf-8", errors="replace")
        if "url(http" in text or "@import" in text:
            found.append(f"{path.relative_to(site)}: loads something from elsewhere")
    return found


def misspelt() -> list[str]:
    """Words that are known misspellings, with place and correction; those in words.txt are meant."""
    files = [
        str(path)
        for pattern in READ
        for path in DOCS.parent.glob(pattern)
        if "built" not in path.parts
    ]
    words = [
        sys.executable,
        "-m",
        "codespell_lib",
        "--ignore-words",
        str(DOCS / "words.txt"),
        *files,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


def main(site: Path) -> int:
    """Print what is wrong; 1 where anything is."""
    found = [*faults(site), *misspelt()]
    print(*(found or ["links, loads and words: nothing is wrong"]), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
