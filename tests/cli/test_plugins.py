"""What another package registers is listed, chosen and judged like our own."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import camlucida
from camlucida.audits.registry import AUDITS
from camlucida.cli import main
from camlucida.common import plugins
from camlucida.common.errors import CamlucidaError
from camlucida.data import KINDS
from camlucida.explanation import subject
from camlucida.methods.registry import METHODS
from camlucida.metrics.registry import METRICS
from camlucida.targets.registry import TARGETS
from reference.bench import tiny

SOURCE = Path(__file__).parents[1] / "reference/lens_plugin.py"
REGISTRIES = (METHODS, METRICS, TARGETS, KINDS, AUDITS)


def install(folder, module, text):
    """A package as pip leaves it: the module, and the entry point in its metadata."""
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[camlucida.plugins]\nmine = {module}\n")


@pytest.fixture(autouse=True)
def _as_before(tmp_path, monkeypatch):
    """A folder of packages on the path; what is registered is forgotten afterwards."""
    known = [registry.names for registry in REGISTRIES]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(subject, "load_model", lambda *_args, **_options: tiny())
    monkeypatch.setattr("camlucida.models.load_model", lambda *_args, **_options: tiny())
    yield
    for registry, names in zip(REGISTRIES, known, strict=True):
        for name in {*registry.names} - {*names}:
            registry.remove(name)
    for name in ("lens_plugin", "broken_plugin"):
        sys.modules.pop(name, None)


@pytest.fixture
def _lens(tmp_path):
    install(tmp_path, "lens_plugin", SOURCE.read_text())


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


@pytest.mark.usefixtures("_lens")
def test_it_is_listed(capsys):
    rows = {row["name"]: row for row in json.loads(run(capsys, "methods", "--json")[1])}
    assert rows["lens-cam"]["options"] == {"power": 1.0}
    assert rows["lens-cam"]["cost"] == rows["gradcam"]["cost"]
    assert "lens-light" in {row["name"] for row in json.loads(run(capsys, "metrics", "--json")[1])}
    assert "lens-light" in camlucida.metrics.metric_groups()["concentration"]
    assert "lens-check" in AUDITS.names
    assert "lens-target" in TARGETS.names
    assert "lens-noise" in KINDS.names


@pytest.mark.usefixtures("_lens")
def test_a_photo_is_explained(capsys, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    code, out, _ = run(
        capsys, "explain", "photo.png", "--method", "lens-cam:power=2", "--target", "lens-target",
        "--json",
    )  # fmt: skip
    assert code == 0
    assert "LensTarget" in out
    assert "LensCAM" in out


@pytest.mark.usefixtures("_lens")
def test_it_takes_part_in_a_benchmark(capsys):
    chosen = ("--method", "lens-cam", "--method", "gradcam", "--target", "lens-target")
    code, out, err = run(
        capsys, "evaluate", "lens-noise,count=3", *chosen, "--metric", "concentration",
        "--metric", "lens-light", "--out", "run", "--no-report", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert {"lens-cam", "gradcam", "lens-light"} <= set(json.dumps(json.loads(out)).split('"'))


@pytest.mark.usefixtures("_lens")
def test_its_audit_is_a_command(capsys, tmp_path):
    assert "lens-check" in run(capsys, "audits")[1]
    assert "lens-check" in run(capsys, "audit", "--help")[1]
    assert "Is it made of glass?" in run(capsys, "audit", "lens-check", "--help")[1]
    code, out, err = run(
        capsys, "audit", "lens-check", "--data", "lens-noise,count=2", "--method", "saliency", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["audit"] == "lens-check"
    assert (tmp_path / "camlucida-out/lens-check.html").exists()
    code, _, err = run(capsys, "audit", "nothing")
    assert code == 2
    assert "nothing" in err


@pytest.mark.usefixtures("_lens")
def test_it_is_audited_and_audits(capsys, tmp_path):
    code, _, err = run(
        capsys, "audit", "all", "--data", "lens-noise,count=2", "--method", "lens-cam", "--method",
        "saliency", "--no-labels", "--audit", "lens-check", "--audit", "deadzone", "--out", "out",
    )  # fmt: skip
    assert code == 0, err
    report = json.loads((tmp_path / "out/trust.json").read_text())
    assert {audit["audit"] for audit in report["audits"]} == {"lens-check", "deadzone"}
    found = json.loads((tmp_path / "out/lens-check.json").read_text())["verdicts"]
    assert {verdict["subject"] for verdict in found} == {"lens-cam", "saliency"}
    walled = json.loads((tmp_path / "out/deadzone.json").read_text())["verdicts"]
    assert {verdict["subject"] for verdict in walled} == {"lens-cam"}


def test_a_module_is_named_by_the_environment(capsys, tmp_path, monkeypatch):
    shutil.copy(SOURCE, tmp_path)
    monkeypatch.setenv("CAMLUCIDA_PLUGINS", " lens_plugin ,")
    assert "lens-cam" in run(capsys, "methods")[1]
    assert camlucida.load_plugins() == ("lens_plugin",)


def test_a_broken_package_is_warned_of_and_left_out(capsys, tmp_path):
    install(tmp_path, "broken_plugin", "1 / 0")
    code, out, err = run(capsys, "methods")
    assert code == 0
    assert "gradcam" in out
    assert len(err.splitlines()) == 1
    assert "broken_plugin" in err
    assert "ZeroDivisionError" in err
    assert run(capsys, "methods")[2] == ""


@pytest.mark.parametrize(
    ("text", "why"), [("1 / 0", "ZeroDivisionError"), ("import nowhere_at_all", "nowhere_at_all")]
)
def test_a_broken_module_that_is_asked_for_is_an_error(capsys, tmp_path, monkeypatch, text, why):
    (tmp_path / "broken_plugin.py").write_text(text)
    monkeypatch.setenv("CAMLUCIDA_PLUGINS", "broken_plugin")
    code, _, err = run(capsys, "methods")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "broken_plugin" in err
    assert why in err
    with pytest.raises(CamlucidaError, match="CAMLUCIDA_PLUGINS"):
        camlucida.load_plugins()


def test_a_name_that_is_taken_is_said(capsys, tmp_path):
    text = (
        "from camlucida.methods import GradCAM, register\n"
        "class Other(GradCAM):\n    pass\n"
        "register('gradcam', paper='x', year=2026, equation='1')(Other)\n"
    )
    install(tmp_path, "broken_plugin", text)
    code, _, err = run(capsys, "methods")
    assert code == 0
    assert "'gradcam' is taken" in err


def test_what_the_documentation_shows_works(capsys, tmp_path):
    page = (Path(__file__).parents[2] / "docs/methods.md").read_text()
    (code,) = (part for part in page.split("```") if part.startswith("python\nfrom dataclasses"))
    install(tmp_path, "lens_plugin", code.removeprefix("python"))
    Image.effect_noise((24, 20), 60).convert("RGB").save(tmp_path / "photo.png")
    (tmp_path / "photos.lst").write_text("photo.png")
    code, out, err = run(
        capsys, "evaluate", "photos.lst", "--metric", "brightness", "--target", "doubled",
        "--no-report", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["images"] == 1


def test_data_that_break_name_the_plug_in(capsys, tmp_path):
    text = (
        "from camlucida import data\n"
        "@data.register('odd')\n"
        "def opener(path, class_names):\n    return path.open()\n"
    )
    install(tmp_path, "broken_plugin", text)
    code, _, err = run(capsys, "evaluate", "odd:x")
    assert code == 2
    assert "broken_plugin.opener" in err
    assert "AttributeError" in err
