"""The wheel in an environment that has nothing but what it requires; each extra alone; what the packages hold."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

import camlucida
from reference import packages

pytestmark = pytest.mark.slow

NETS = """
from torch import nn

def build(num_classes=10):
    head = nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, num_classes)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *head)
"""
OWN = """
import camlucida, nets, torch
net = nets.build(NUMBER)
photo = camlucida.data.picture("lion")
how = {"preprocess": camlucida.Preprocess(size=(32, 32))}
"""
CALLS = {
    "embedded": "print(camlucida.explain(camlucida.load_model('embedded'), photo).predictions[0][0].name)",
    "models": "from camlucida.cli import main; assert main(['layers', 'timm:resnet18']) == 0",
    "benchmark": "print(camlucida.benchmark.evaluate(net, 'photos', ['gradcam'], ['sparseness'], 'run', **how).table)",
    "ray": "import camlucida.benchmark.ray_engine, ray.data",
    "data": "assert len(camlucida.data.open_data('photos')) == 21",
    "train": "camlucida.data.open_data('digits')[0].picture()",
    "peers": "images = torch.rand(1, 3, 32, 32)\ncamlucida.explain(net, images, method='captum:saliency')\n"
    "camlucida.explain(net, images, method='zennit:epsilon_plus_flat')",
    "scans": "import pillow_heif, pydicom\npillow_heif.from_pillow(camlucida.data.read_image(photo)).save('a.heic')\n"
    "assert camlucida.data.read_image('a.heic').size == camlucida.data.read_image(photo).size",
    "faces": "one, other = camlucida.faces.demo_photos()[:2]\n"
    "print(camlucida.faces.explain_pair(camlucida.faces.load_embedder('dlib'), one, other, method='gradcam').verdict)",
    "app": "from camlucida.app import serve\nimport starlette, uvicorn",
    "lightning": "from camlucida.metrics.torchmetrics import MapMetric\n"
    "from camlucida.training.lightning import MapLogger\nmetric = MapMetric('sparseness')\n"
    "metric.update(net, torch.rand(2, 3, 32, 32))\nprint(metric.compute())",
    "docs": "import furo, sphinx",
}


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    return {file.suffix: file for file in packages.build(folder)}


@pytest.fixture
def environment(dist, tmp_path):
    """Runs code where only the wheel and what it requires, with some extras, can be imported."""
    site = tmp_path / "site"
    wheel = packages.unpack(dist[".whl"], site)
    (tmp_path / "nets.py").write_text(NETS)

    def prepared(*extras):
        try:
            packages.link(packages.required(wheel, extras), site)
        except LookupError as error:
            pytest.skip(str(error))

        def run(*words):
            paths = {
                "PYTHONPATH": f"{site}:{tmp_path}",
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
            }
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-S", *words],
                cwd=tmp_path,
                env=paths,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        return run

    return prepared


def test_a_users_own_module_is_explained_with_the_core_dependencies_alone(environment, tmp_path):
    run = environment()
    said = run(
        "-c",
        f"{OWN.replace('NUMBER', '10')}print(camlucida.__file__, camlucida.explain(net, photo, **how))",
    )
    assert str(tmp_path) in said
    assert "by gradcam" in said
    assert "not there" in run(
        "-c",
        "import importlib.util as u; print('there' if u.find_spec('timm') or u.find_spec('pandas') else 'not there')",
    )
    photo = camlucida.data.picture("lion").path
    said = run("-m", "camlucida", "explain", str(photo), "--model", "nets.py:build", "--size", "32")
    assert (tmp_path / "camlucida-out").is_dir(), said


@pytest.mark.parametrize("extra", CALLS)
def test_each_extra_alone(environment, extra):
    number = "1000" if extra == "benchmark" else "10"
    environment(extra)("-c", OWN.replace("NUMBER", number) + CALLS[extra])


def test_every_extra_is_tried(dist, tmp_path):
    wheel = packages.unpack(dist[".whl"], tmp_path)
    assert {*CALLS, "all"} == set(wheel.metadata.get_all("Provides-Extra"))
    assert wheel.version == camlucida.__version__


def test_what_is_packed(dist):
    with zipfile.ZipFile(dist[".whl"]) as wheel:
        names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSES.md") for name in names)
    assert not [name for name in names if re.search(r"(^|/)(tests|docs)/|\.pyc$", name)]
    with tarfile.open(dist[".gz"]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert {
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "docs/conf.py",
        "tests/test_package.py",
    } <= inside
    assert not [name for name in inside if name.startswith(("docs/built", "docs/_build"))]
