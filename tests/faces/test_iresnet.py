"""IResNet in the layouts of ArcFace and AdaFace checkpoints."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from camlucida.common.errors import ModelError
from camlucida.faces.load import load_embedder
from camlucida.faces.networks.facenet import InceptionResNetV1, load_facenet
from camlucida.faces.networks.iresnet import IResNet, load_iresnet

UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def _shake(net):
    """Statistics and weights that no layer can be left out of unnoticed."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.1)
        if isinstance(module, nn.PReLU):
            module.weight.data.uniform_(-0.5, 0.5)
    return net.eval()


class _AdaFaceUnit(nn.Module):
    """A unit as AdaFace's training code names its parts."""

    def __init__(self, inside, width, stride):
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if inside == width
            else nn.Sequential(
                nn.Conv2d(inside, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inside),
            nn.Conv2d(inside, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return self.shortcut_layer(x) + self.res_layer(x)


class _AdaFace(nn.Module):
    def __init__(self, units):
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        body, inside = [], 64
        for width, count in zip((64, 128, 256, 512), units, strict=True):
            for index in range(count):
                body.append(_AdaFaceUnit(inside, width, 2 if index == 0 else 1))
                inside = width
        self.body = nn.Sequential(*body)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * 49, 16),
            nn.BatchNorm1d(16, affine=False),
        )

    def forward(self, x):
        return self.output_layer(self.body(self.input_layer(x)))


@pytest.fixture(scope="module")
def adaface():
    torch.manual_seed(0)
    return _shake(_AdaFace(UNITS[18]))


@pytest.fixture(scope="module")
def arcface():
    torch.manual_seed(0)
    return _shake(IResNet(18, dimensions=16))


def test_an_adaface_training_checkpoint_gives_the_same_embeddings(adaface, tmp_path):
    path = tmp_path / "adaface.ckpt"
    state = {f"model.{key}": value for key, value in adaface.state_dict().items()}
    torch.save({"state_dict": {**state, "head.kernel": torch.zeros(16, 10)}, "epoch": 3}, path)
    net, layout = load_iresnet(path)
    assert layout == "adaface"
    x = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        expected = adaface(x)
        assert (net(x) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_plain_adaface_state_dict_too(adaface, tmp_path):
    path = tmp_path / "adaface.pt"
    torch.save(adaface.state_dict(), path)
    embedder = load_embedder(f"iresnet18:{path}")
    assert embedder.preprocess.channels == "bgr"
    x = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        assert (embedder.embed(x) - adaface(x)).abs().max() < 1e-4


def test_an_arcface_checkpoint_comes_back_as_rgb(arcface, tmp_path):
    path = tmp_path / "backbone.pth"
    # The training in parallel puts a prefix before every name.
    torch.save({f"module.{key}": value for key, value in arcface.state_dict().items()}, path)
    net, layout = load_iresnet(path)
    assert layout == "arcface"
    x = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        assert torch.equal(net(x), arcface(x))
    embedder = load_embedder("iresnet", file=path)
    assert embedder.preprocess.channels == "rgb"
    assert embedder.layer == "layer4"
    assert embedder.size == (112, 112)
    assert embedder.preprocess.normalise(torch.ones(3, 1, 1)).flatten().tolist() == [1, 1, 1]
    assert load_embedder("iresnet18", file=path, preset="adaface").preprocess.channels == "bgr"


def test_the_layouts_differ_in_the_first_shortcut(arcface):
    assert isinstance(arcface.layer1[0].downsample, nn.Sequential)
    pooled = IResNet(18, "pool").layer1[0].downsample
    x = torch.rand(1, 64, 6, 6)
    assert torch.equal(pooled(x), x[:, :, ::2, ::2])


def test_a_unit_equals_its_formula(arcface):
    unit = arcface.layer2[0]
    x = torch.randn(1, 64, 8, 8)

    def bn(x, m):
        view = [t.view(1, -1, 1, 1) for t in (m.running_mean, m.running_var, m.weight, m.bias)]
        return (x - view[0]) / (view[1] + 1e-5).sqrt() * view[2] + view[3]

    y = bn(F.conv2d(bn(x, unit.bn1), unit.conv1.weight, padding=1), unit.bn2)
    y = torch.where(y > 0, y, y * unit.prelu.weight.view(1, -1, 1, 1))
    y = bn(F.conv2d(y, unit.conv2.weight, stride=2, padding=1), unit.bn3)
    shortcut = bn(F.conv2d(x, unit.downsample[0].weight, stride=2), unit.downsample[1])
    with torch.no_grad():
        assert (unit(x) - y - shortcut).abs().max() < 1e-5


# Millions of parameters of the published backbones.
@pytest.mark.parametrize(
    ("depth", "millions"), [(18, 24.03), (34, 34.14), (50, 43.59), (100, 65.16), (101, 65.16)]
)
def test_the_backbones_have_their_published_size(depth, millions):
    with torch.device("meta"):
        net = IResNet(depth)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_files_that_do_not_fit_are_refused_in_words(arcface, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(arcface.state_dict(), path)
    with pytest.raises(ModelError, match="IResNet-18, not IResNet-50"):
        load_iresnet(path, 50)
    state = arcface.state_dict()
    del state["layer3.1.conv1.weight"]
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"1 missing \(layer3\.1\.conv1\.weight\)"):
        load_iresnet(path)
    torch.save({"fc.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(ModelError, match="no IResNet"):
        load_iresnet(path)
    with pytest.raises(ModelError, match="no IResNet-77"):
        IResNet(77)


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it ran",))

    path = tmp_path / "trap.ckpt"
    torch.save({"state_dict": Trap()}, path)
    with pytest.raises(ModelError, match="never run"):
        load_iresnet(path)


# ------------------------------------------------------------------------------------------------ FaceNet


@pytest.fixture(scope="module")
def facenet():
    torch.manual_seed(0)
    return _shake(InceptionResNetV1())


def test_a_facenet_checkpoint_comes_back(facenet, tmp_path):
    path = tmp_path / "facenet.pt"
    logits = {"logits.weight": torch.zeros(5, 512), "logits.bias": torch.zeros(5)}
    torch.save({**facenet.state_dict(), **logits}, path)
    embedder = load_embedder(f"facenet:{path}")
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(embedder.embed(x), facenet(x))
    assert embedder.embed(x).norm(dim=1) == pytest.approx(torch.ones(2).numpy(), abs=1e-5)
    pixel = embedder.preprocess.normalise(torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1))
    assert pixel.flatten().tolist() == pytest.approx([-127.5 / 128, 0, 127.5 / 128], abs=1e-6)


def test_facenet_equals_facenet_pytorch(facenet):
    other = pytest.importorskip("facenet_pytorch").InceptionResnetV1().eval()
    other.load_state_dict(facenet.state_dict(), strict=False)
    x = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert (other(x) - facenet(x)).abs().max() < 1e-5


def test_facenet_has_its_published_size_and_names(facenet):
    # 23.48 million parameters without the classifier.
    assert sum(p.numel() for p in facenet.parameters()) == 23_482_624
    names = facenet.state_dict()
    for name in (
        "conv2d_1a.conv.weight",
        "repeat_1.4.branch2.2.bn.running_var",
        "mixed_6a.branch1.2.conv.weight",
        "repeat_2.9.branch1.1.conv.weight",
        "mixed_7a.branch2.1.bn.bias",
        "block8.conv2d.bias",
        "last_linear.weight",
        "last_bn.running_mean",
    ):
        assert name in names


def test_a_facenet_file_that_does_not_fit(facenet, tmp_path):
    path = tmp_path / "facenet.pt"
    state = facenet.state_dict()
    state["extra"] = torch.zeros(1)
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"1 unexpected \(extra\)"):
        load_facenet(path)
