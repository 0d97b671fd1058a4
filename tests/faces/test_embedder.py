"""What an embedder is: inputs, embeddings, similarities, targets."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camlucida
from camlucida.common.errors import ModelError, TargetError
from camlucida.data.images import read_image
from camlucida.faces.align import aligned
from camlucida.faces.embedder import Centred, Embedder, centred
from camlucida.faces.load import dlib_centre, load_embedder, preprocess_for
from camlucida.faces.networks.dlib_net import model_file
from camlucida.faces.photos import demo_photos


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean(dim=(2, 3)))


def _embedder(**options):
    return Embedder(
        module=_Net().eval(), name="tiny", preprocess=preprocess_for("arcface", 16), **options
    )


def _picture(seed=0, size=(20, 24)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))


def test_pictures_crops_arrays_and_paths_give_one_input(tmp_path):
    embedder, picture = _embedder(), _picture()
    picture.save(tmp_path / "face.png")
    several = [picture, aligned(picture), np.asarray(picture), tmp_path / "face.png"]
    inputs = embedder.inputs(several)
    assert inputs.shape == (4, 3, 16, 16)
    assert (inputs == inputs[0]).all()
    assert torch.equal(embedder.inputs(picture), inputs[:1])
    assert torch.equal(embedder.inputs(inputs), inputs)


def test_channels_are_turned_for_bgr():
    rgb = _embedder().inputs(_picture())
    bgr = Embedder(module=_Net(), name="b", preprocess=preprocess_for("adaface", 16))
    assert torch.equal(bgr.inputs(_picture()), rgb.flip(1))


def test_a_batch_equals_its_faces_and_the_model_stays_as_it_was():
    embedder = _embedder()
    embedder.module.train()
    before = copy.deepcopy(embedder.module.state_dict())
    x = torch.randn(5, 3, 16, 16)
    together = embedder.embed(x, batch_size=2)
    assert together.shape == (5, 5)
    assert not together.requires_grad
    single = torch.cat([embedder.embed(row) for row in x])
    assert (together - single).abs().max() < 1e-6
    assert embedder.module.training
    assert all(p.grad is None for p in embedder.module.parameters())
    after = embedder.module.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_similarities_are_cosines_or_distances():
    a, b = torch.randn(4, 5), torch.randn(4, 5)
    for i in range(4):
        p, q = a[i].tolist(), b[i].tolist()
        dot = sum(x * y for x, y in zip(p, q, strict=True))
        norms = sum(x * x for x in p) ** 0.5 * sum(y * y for y in q) ** 0.5
        apart = sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) ** 0.5
        assert _embedder().similarity(a, b)[i] == pytest.approx(dot / norms, abs=1e-5)
        found = _embedder(compare="distance").similarity(a, b)[i]
        assert found == pytest.approx(-apart, abs=1e-5)
    one = _embedder().similarity(a[0], b)
    assert one.shape == (4,)
    assert one == pytest.approx(_embedder().similarity(a[:1].expand(4, -1), b).numpy(), abs=1e-6)
    assert _embedder(compare="distance").similarity(a[0], a[0]).tolist() == [0]


def test_targets_are_the_similarity():
    embedder = _embedder()
    phi = embedder.embed(torch.randn(3, 3, 16, 16))
    target = embedder.target(phi[0])
    assert isinstance(target, camlucida.CosineSimilarity)
    assert target(phi) == pytest.approx(embedder.similarity(phi, phi[0]).numpy())
    distance = embedder.target(phi[0], compare="distance", squared=False)
    apart = _embedder(compare="distance").similarity(phi, phi[0])
    assert distance(phi) == pytest.approx(apart.numpy(), abs=1e-6)
    assert embedder.target(phi[0], detach_norms=True).detach_norms
    with pytest.raises(TargetError, match="divides by no norm"):
        embedder.target(phi[0], compare="distance", detach_norms=True)


def test_centring_takes_the_vector_off_and_compares_by_cosine():
    plain = _embedder(compare="distance", threshold=-1.0, layer="conv")
    x = torch.randn(3, 3, 16, 16)
    centre = torch.arange(5.0)
    about = centred(plain, centre)
    assert torch.equal(about.embed(x), plain.embed(x) - centre)
    assert isinstance(about.module, Centred)
    assert (about.compare, about.threshold, about.layer) == ("cosine", None, "net.conv")
    assert dict(about.module.named_modules())["net.conv"] is plain.module.conv
    # Distances do not see it.
    a, b = about.embed(x), plain.embed(x)
    apart = plain.similarity(b[0], b[1]).numpy()
    assert plain.similarity(a[0], a[1]) == pytest.approx(apart, abs=1e-6)
    with pytest.raises(ModelError, match="centred already"):
        centred(about, centre)
    with pytest.raises(ModelError, match="one finite vector"):
        centred(plain, torch.zeros(2, 5))


def test_decisions_need_a_threshold():
    embedder = _embedder(threshold=0.3)
    assert embedder.same(torch.tensor([0.29, 0.3, 0.9])).tolist() == [False, True, True]
    with pytest.raises(ModelError, match="no threshold"):
        _embedder().same(torch.zeros(1))


def test_an_embedder_can_be_explained_and_needs_a_target():
    embedder = _embedder()
    reference = embedder.embed(_picture(1))[0]
    target = embedder.target(reference)
    found = camlucida.explain(embedder, _picture(), method="gradcam", target=target, layers="conv")
    assert found.maps.shape == (1, 16, 16)
    expected = embedder.similarity(embedder.embed(_picture()), reference)
    assert found.target_values == pytest.approx(expected.numpy(), abs=1e-6)
    with pytest.raises(TargetError, match="has no classes"):
        embedder.check_target(None)
    embedder.check_target(target)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"module": "net"}, "torch.nn.Module"),
        ({"preprocess": None}, "preprocess"),
        ({"compare": "angle"}, "cosine"),
        ({"align": "mtcnn"}, "arcface-112"),
    ],
)
def test_what_makes_no_embedder(wrong, message):
    options = {"module": _Net(), "name": "x", "preprocess": preprocess_for("arcface", 16), **wrong}
    with pytest.raises(ModelError, match=message):
        Embedder(**options)


def test_inputs_that_do_not_fit():
    embedder = _embedder()
    with pytest.raises(ModelError, match="16, 16"):
        embedder.inputs(torch.zeros(1, 3, 20, 20))
    with pytest.raises(ModelError, match="no face"):
        embedder.inputs([])
    flat = Embedder(
        module=nn.Conv2d(3, 4, 3), name="maps", preprocess=preprocess_for("arcface", 16)
    )
    with pytest.raises(ModelError, match=r"expected embeddings \(N, D\)"):
        flat.embed(_picture())


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("iresnet50", {}, "needs the file"),
        ("resnet50", {}, "unknown face embedder"),
        ("dlip", {}, "did you mean 'dlib'|dlib"),
        ("weights.pth", {}, "name their architecture"),
        ("dlib", {"architecture": "iresnet50"}, "only for a file"),
        ("mobilefacenet:a.onnx", {"file": "b.onnx"}, "two files"),
        ("facenet:none.pt", {}, "no such"),
        ("iresnet18:none.pt", {}, "no such"),
    ],
)
def test_what_cannot_be_loaded(spec, options, message):
    with pytest.raises(ModelError, match=message):
        load_embedder(spec, **options)


# ------------------------------------------------------------------------------------------ dlib, for real


@pytest.fixture(scope="module")
def crops():
    pytest.importorskip("dlib")
    try:
        model_file()
    except ModelError as error:
        pytest.skip(str(error))
    from camlucida.faces.detect import find_faces

    found = {}
    for photo in demo_photos():
        (face,) = find_faces(photo)
        found[photo.path.stem] = face.crop(read_image(photo), "dlib-150")
    return found


@pytest.mark.parametrize("spec", ["dlib", "dlib:centred"])
def test_same_and_different_people_are_decided_right(crops, spec):
    embedder = load_embedder(spec)
    names = list(crops)
    phi = embedder.embed([crops[name] for name in names])
    for i, a in enumerate(names):
        for j in range(i):
            similarity = embedder.similarity(phi[i], phi[j])
            same = a.rpartition("-")[0] == names[j].rpartition("-")[0]
            assert bool(embedder.same(similarity)) is same, (a, names[j], float(similarity))


def test_the_centre_is_a_mean_of_embeddings(crops):
    embedder = load_embedder()
    centre = dlib_centre()
    assert centre.shape == (128,)
    phi = embedder.embed(list(crops.values()))
    # All embeddings point the same way, that of the centre; about it they do not.
    assert torch.cosine_similarity(phi, centre[None]).min() > 0.85
    assert float((phi - centre).mean(0).norm()) < 0.5 * float(centre.norm())


def test_a_preset_can_be_chosen_and_unknown_ones_are_named(crops):
    del crops
    embedder = load_embedder("dlib", preset="arcface")
    assert embedder.size == (150, 150)
    assert embedder.preprocess.mean == (0.5,) * 3
    with pytest.raises(ModelError, match="adaface"):
        load_embedder("dlib", preset="vggface")
    with pytest.raises(ModelError, match="cannot be put on device"):
        load_embedder("dlib", device="cuda:99")


def test_explaining_an_embedder_takes_a_target():
    embedder = load_embedder("dlib")
    crop = torch.zeros(1, 3, 150, 150)
    with pytest.raises(TargetError, match="embedder"):
        camlucida.explain(embedder, crop)
    with pytest.raises(TargetError, match="embeddings"):
        camlucida.explain(embedder.module, crop)
    assert camlucida.explain(
        embedder, crop, target=embedder.target(torch.ones(128)), layers=embedder.layer
    )
