"""An environment that holds a wheel and what it requires, and nothing else: linked out of the one that runs the tests.

``python -m reference.packages`` in the folder ``tests`` prints the sizes that the README gives.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def build(folder: Path, *targets: str) -> list[Path]:
    """The wheel and the sdist, as ``make dist`` builds them."""
    chosen = [word for target in targets for word in ("-t", target)]
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *chosen]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # noqa: S603
    return sorted(folder.iterdir())


@cache
def installed() -> dict[str, metadata.Distribution]:
    """Distributions by name."""
    return {canonicalize_name(one.metadata["Name"]): one for one in metadata.distributions()}


def required(
    wheel: metadata.Distribution, extras: tuple[str, ...] = ()
) -> dict[str, metadata.Distribution]:
    """All that a distribution requires with these extras, and what that requires.

    Raises:
        LookupError: something is not installed, or not in the version that is asked for.
    """
    found: dict[str, metadata.Distribution] = {}
    asked = set()
    left = [(wheel, extra) for extra in ("", *extras)]
    while left:
        of, extra = left.pop()
        for text in of.requires or ():
            need = Requirement(text)
            if need.marker is not None and not need.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(need.name)
            one = wheel if name == "camlucida" else installed().get(name)
            if one is None or (
                one is not wheel and not need.specifier.contains(one.version, prereleases=True)
            ):
                raise LookupError(f"{of.metadata['Name']} requires {need}, which is not installed")
            if one is not wheel:
                found[name] = one
            for more in ("", *need.extras):
                if (name, more) not in asked:
                    asked.add((name, more))
                    left.append((one, more))
    return found


@cache
def _shared() -> set[str]:
    """Folders that several distributions put files into."""
    tops = Counter(
        top for one in installed().values() for top in {f.parts[0] for f in one.files or ()}
    )
    return {top for top, count in tops.items() if count > 1}


def link(found: dict[str, metadata.Distribution], site: Path) -> None:
    """Put distributions into a folder."""
    site.mkdir(parents=True, exist_ok=True)
    for one in found.values():
        links = set()
        for file in one.files or ():
            top = file.parts[0]
            if top not in {"..", "__pycache__"} and file.suffix != ".pth":
                links.add(str(file) if top in _shared() else top)
        for name in links:
            place, source = site / name, Path(str(one.locate_file(name)))
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.exists() and not place.exists():
                place.symlink_to(source)


def unpack(wheel: Path, site: Path) -> metadata.Distribution:
    """Install a wheel alone."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return next(
        one
        for one in metadata.distributions(path=[str(site)])
        if one.metadata["Name"] == "camlucida"
    )


def size(found: dict[str, metadata.Distribution]) -> float:
    """Megabytes that distributions take on disk."""
    places = {
        Path(str(one.locate_file(file))) for one in found.values() for file in one.files or ()
    }
    return sum(place.stat().st_size for place in places if place.is_file()) / 1e6


def main() -> None:
    """Print the sizes."""
    with tempfile.TemporaryDirectory() as folder:
        for file in build(Path(folder) / "dist"):
            print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB")
            if file.suffix == ".whl":
                wheel = unpack(file, Path(folder) / "site")
        print(f"unpacked: {size({'camlucida': wheel}):.1f} MB")
        core = required(wheel)
        cuda = {
            name: one
            for name, one in core.items()
            if name.startswith(("nvidia-", "cuda-", "triton"))
        }
        print(f"core: {size(core):,.0f} MB, {size(cuda):,.0f} MB of which are CUDA's libraries")
        for extra in wheel.metadata.get_all("Provides-Extra"):
            try:
                more = {k: v for k, v in required(wheel, (extra,)).items() if k not in core}
            except LookupError as error:
                print(f"{extra}: {error}")
            else:
                print(f"{extra}: {size(more):,.0f} MB more, {len(more)} packages")


if __name__ == "__main__":
    main()
