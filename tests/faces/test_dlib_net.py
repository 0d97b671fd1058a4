"""dlib's network in torch, and its file."""

import numpy as np
import pytest
import torch
from torch import nn

from camlucida.common.errors import ModelError
from camlucida.data.images import read_image
from camlucida.faces.networks.dlib_net import (
    MEAN,
    STD,
    Affine,
    DlibResNet,
    _padded_sum,
    load_dlib,
    model_file,
)
from camlucida.faces.photos import demo_photos

try:
    FILE = model_file()
except ModelError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def net():
    return load_dlib()


def _inputs(chips):
    pixels = torch.stack([torch.tensor(chip).permute(2, 0, 1).float() / 255 for chip in chips])
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def _chips():
    rng = np.random.default_rng(0)
    chips = [rng.integers(0, 256, (150, 150, 3), dtype=np.uint8)]
    chips += [np.asarray(read_image(photo).resize((150, 150))) for photo in demo_photos()[:2]]
    return chips


def test_equals_dlib(net):
    dlib = pytest.importorskip("dlib")
    original = dlib.face_recognition_model_v1(str(FILE))
    chips = _chips()
    expected = np.array([original.compute_face_descriptor(chip) for chip in chips])
    found = net(_inputs(chips)).detach().numpy()
    assert np.abs(found - expected).max() < 1e-5


def test_has_the_size_of_dlibs(net):
    # 29 convolutions with biases, an affine pair after each, 128 x 256 at the end
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == 29
    assert sum(isinstance(m, Affine) for m in net.modules()) == 29
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training


def test_feature_maps_have_the_sizes_that_are_told(net):
    sizes = {}
    handles = [
        level.register_forward_hook(
            lambda _m, _i, out, k=k: sizes.update({k: tuple(out.shape[1:])})
        )
        for k, level in enumerate(net.levels)
    ]
    net(torch.zeros(1, 3, 150, 150))
    for handle in handles:
        handle.remove()
    assert sizes[2] == (128, 8, 8)
    assert sizes[4] == (256, 2, 2)


def test_unequal_maps_are_filled_with_zeros():
    a, b = torch.rand(2, 2, 4, 3), torch.rand(2, 3, 3, 3)
    expected = torch.zeros(2, 3, 4, 3)
    for n in range(2):
        for k in range(3):
            for i in range(4):
                for j in range(3):
                    if k < 2:
                        expected[n, k, i, j] += a[n, k, i, j]
                    if i < 3:
                        expected[n, k, i, j] += b[n, k, i, j]
    assert torch.equal(_padded_sum(a, b), expected)
    assert torch.equal(_padded_sum(a, a), 2 * a)


def test_gradients_reach_the_image():
    x = torch.rand(1, 3, 150, 150, requires_grad=True)
    DlibResNet().eval()(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("length", [0, 1, 3, 40, 300, 330, 341, 342, 5000, 19_380, 1_000_000])
def test_a_truncated_file_is_refused(tmp_path, length):
    path = tmp_path / "cut.dat"
    with FILE.open("rb") as stream:
        path.write_bytes(stream.read(length))
    with pytest.raises(ModelError, match=r"cut\.dat.*ends at byte"):
        load_dlib(path)


def test_a_file_cut_at_its_very_end_is_refused(tmp_path):
    path = tmp_path / "cut.dat"
    path.write_bytes(FILE.read_bytes()[:-1])
    with pytest.raises(ModelError, match="ends at byte"):
        load_dlib(path)
    path.write_bytes(FILE.read_bytes() + b"x")
    with pytest.raises(ModelError, match="1 bytes follow"):
        load_dlib(path)


@pytest.mark.parametrize(
    ("at", "byte", "message"),
    [
        (0, 0xFF, "integer"),
        (5, 0x00, "loss_metric_2"),
        (300, 0x00, "input_rgb_image_sized"),
        (0x14F, 0x00, "con_4"),
    ],
)
def test_a_damaged_byte_is_refused(tmp_path, at, byte, message):
    data = bytearray(FILE.read_bytes()[:60_000])
    data[at] = byte
    path = tmp_path / "damaged.dat"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=message):
        load_dlib(path)


def test_a_huge_tensor_is_refused_before_memory_is_asked_for(tmp_path):
    data = bytearray(FILE.read_bytes()[:60_000])
    where = data.index(b"con_4") + 5
    # version 2, then four dimensions of four bytes each
    data[where : where + 2 + 20] = b"\x01\x02" + 4 * b"\x04\xff\xff\xff\x7f"
    path = tmp_path / "huge.dat"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="has the shape"):
        load_dlib(path)


def test_any_other_file_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    for seed in range(30):
        path = tmp_path / f"{seed}.dat"
        path.write_bytes(rng.bytes(2000))
        with pytest.raises(ModelError):
            load_dlib(path)
    with pytest.raises(ModelError, match="not dlib's face recognition network"):
        load_dlib(model_file("shape_predictor_5_face_landmarks.dat"))
    with pytest.raises(ModelError, match="no such model file"):
        load_dlib(tmp_path / "none.dat")


def test_a_missing_package_is_said_with_what_to_install():
    with pytest.raises(ModelError, match=r"camlucida\[faces\]"):
        model_file("no_such_model.dat")
