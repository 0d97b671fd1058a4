"""``explain``: a batch is its images, photos and tensors, names and errors, presets, diagnostics."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camlucida
from camlucida import (
    CamlucidaError,
    Cell,
    Comparison,
    CosineSimilarity,
    ExpLogit,
    ImageError,
    LayerError,
    Logit,
    LogitMargin,
    LogProbability,
    MethodError,
    ModelError,
    Preprocess,
    Probability,
    Segmentation,
    Steps,
    TargetError,
    explain,
)
from camlucida.methods import GradCAM, GradCAMpp, LayerCAM, SmoothGrad, list_methods, method_row
from reference import networks
from reference import steps as slow

METHODS = [
    row.name for row in list_methods() if not {"attention", "reference embedding"} & {*row.needs}
]
QUICK = {
    "opticam": {"iterations": 3},
    "rise": {"masks": 100},
    "integrated-gradients": {"n_steps": 3},
    "smoothgrad": {"n_samples": 3},
    "fame": {"iterations": 3},
}
SIZE = (7, 9)


def model(**options):
    return networks.build(size=SIZE, signed=False, **{"m": 4, **options})


def layers_of(name):
    return "features" if method_row(name).make().uses_layers else None


X = networks.images(5, 3, SIZE)


# -------------------------------------------------------------------------------- batch = one by one


def check_same(batch, singles, tolerance=1e-10):
    for n, one in enumerate(singles):
        for field in ("maps", "raw", "signed", "target_values"):
            torch.testing.assert_close(
                getattr(batch, field)[n], getattr(one, field)[0], rtol=0, atol=tolerance
            )
        for name, layer_map in one.layer_maps.items():
            torch.testing.assert_close(
                batch.layer_maps[name][n], layer_map[0], rtol=0, atol=tolerance
            )
        assert batch.predictions[n][0].index == one.predictions[0][0].index
        assert batch.explained[n] == one.explained[0]
        assert batch.diagnostics[n].messages == one.diagnostics[0].messages


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("batch_size", [2, 32])
def test_a_batch_is_its_images(name, batch_size):
    options = {"method": name, "layers": layers_of(name), "seed": 3, **QUICK.get(name, {})}
    m = model()
    classes = [0, 3, 2, 1, 3]
    batch = explain(m, X, target=classes, batch_size=batch_size, **options)
    assert len(batch) == 5
    assert batch.maps.shape == (5, *SIZE)
    check_same(batch, [explain(m, X[n : n + 1], target=classes[n], **options) for n in range(5)])
    # The predicted class of each image, too.
    batch = explain(m, X, batch_size=batch_size, **options)
    check_same(batch, [explain(m, X[n], **options) for n in range(5)])
    # Any order of the images.
    turned = explain(m, X.flip(0), batch_size=batch_size, **options)
    torch.testing.assert_close(turned.maps.flip(0), batch.maps, rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("kind", ["list", "tuple", "array", "tensor"])
def test_classes_per_image(kind, batch_size):
    classes = {
        "list": [0, 3, 2, 1, 3],
        "tuple": (0, 3, 2, 1, 3),
        "array": np.array([0, 3, 2, 1, 3]),
        "tensor": torch.tensor([0, 3, 2, 1, 3]),
    }[kind]
    found = explain(model(), X, target=classes, layers="features", batch_size=batch_size)
    assert found.target.classes.tolist() == [0, 3, 2, 1, 3]
    expected = model()(X).detach()[torch.arange(5), torch.tensor([0, 3, 2, 1, 3])]
    torch.testing.assert_close(found.target_values, expected)


@pytest.mark.parametrize("batch_size", [2, 5])
@pytest.mark.parametrize(
    "target",
    [
        lambda: LogitMargin([0, 3, 2, 1, 3], aggregator="max"),
        lambda: CosineSimilarity(networks.images(5, 4, (1, 1), 9)[:, :, 0, 0]),
        lambda: Cell("features", [0, 1, 2, 3, 4], [4, 3, 2, 1, 0]),
        lambda: Cell("features", torch.arange(5), -1),
    ],
    ids=["margin", "cosine", "cell lists", "cell tensor"],
)
def test_targets_per_image(target, batch_size):
    layers = "features" if not isinstance(target(), Cell) else "features.0"
    m = model()
    batch = explain(m, X, target=target(), layers=layers, batch_size=batch_size)
    pinned = explain(m, X, target=target(), layers=layers, batch_size=32).target
    for n in range(5):
        one = explain(m, X[n], target=pinned.take(torch.tensor([n])), layers=layers)
        torch.testing.assert_close(batch.maps[n], one.maps[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(batch.target_values[n], one.target_values[0])


@pytest.mark.parametrize("batch_size", [2, 5])
def test_segmentation_masks_per_image(batch_size):
    dense = networks.randomise(
        networks.Split(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)).double().eval(), 1
    )
    mask = torch.rand(5, *SIZE)
    batch = explain(
        dense, X, target=Segmentation(1, mask=mask), layers="features", batch_size=batch_size
    )
    for n in range(5):
        one = explain(dense, X[n], target=Segmentation(1, mask=mask[n]), layers="features")
        torch.testing.assert_close(batch.maps[n], one.maps[0])
    free = explain(dense, X, target=Segmentation(), layers="features", batch_size=batch_size)
    assert len(free) == 5


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
@pytest.mark.parametrize("classes", [[0], [0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 0, 1]])
def test_as_many_classes_as_images(classes, batch_size):
    """Never an index error, never a silent cut (a fault seen in the field)."""
    with pytest.raises(TargetError, match=f"{len(classes)} classes were given for 5 images"):
        explain(model(), X, target=classes, layers="features", batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [2, 32])
@pytest.mark.parametrize("many", [3, 7])
def test_as_many_references_as_images(many, batch_size):
    with pytest.raises(TargetError):
        explain(
            model(),
            X,
            target=CosineSimilarity(torch.randn(many, 4)),
            layers="features",
            batch_size=batch_size,
        )


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_must_be_positive(batch_size):
    with pytest.raises(CamlucidaError, match="batch_size"):
        explain(model(), X, layers="features", batch_size=batch_size)


def test_a_prediction_is_kept_at_least():
    with pytest.raises(CamlucidaError, match="top must be at least 1"):
        explain(model(), X, layers="features", top=0)


def test_a_generator_gives_one_seed_for_all():
    def run(batch_size, method="smoothgrad"):
        seed = torch.Generator().manual_seed(5)
        return explain(model(), X, method=method, seed=seed, batch_size=batch_size, n_samples=2)

    torch.testing.assert_close(run(2).maps, run(32).maps)


def test_seeds():
    a, b, c = (
        explain(model(), X, method="smoothgrad", seed=s, n_samples=2).maps for s in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_provenance_holds_the_classes_of_all_images():
    found = explain(model(), X, target=[0, 3, 2, 1, 3], layers="features", batch_size=2)
    assert found.provenance.to_dict()["target"]["classes"] == [0, 3, 2, 1, 3]


# ------------------------------------------------------------------------------------------- formula


def test_the_whole_way_against_the_reference():
    from reference import cams

    m = model()
    a, g, _ = networks.parts(m, X, Logit(2))
    found = explain(m, X, target=2, layers="features")
    for n in range(5):
        L = cams.gradcam(a[n].numpy(), g[n].numpy())
        np.testing.assert_allclose(found.signed[n].numpy(), L, atol=1e-12)
        np.testing.assert_allclose(found.raw[n].numpy(), slow.rectify(L), atol=1e-12)
        np.testing.assert_allclose(found.maps[n].numpy(), slow.finish(L, SIZE), atol=1e-11)


class Halving(nn.Module):
    """Two layers of different sizes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.second(self.first(x)).mean((2, 3)))


def halving():
    return networks.randomise(Halving().double().eval(), 6)


def test_pytorch_grad_cam_preset():
    m = halving()
    for layers in (["second"], ["first", "second"]):
        found = explain(m, X, layers=layers, steps="pytorch-grad-cam", target=1)
        for n in range(5):
            maps = [found.layer_maps[name][n].numpy() for name in layers]
            np.testing.assert_allclose(
                found.maps[n].numpy(), slow.pytorch_grad_cam(maps, SIZE), atol=1e-12
            )


def test_steps_of_ones_own():
    m = halving()
    plain = explain(m, X, layers="second", target=1)
    own = Steps(rectify=False, normalise="max", sigma=1.0)
    found = explain(m, X, layers="second", target=1, steps=own)
    torch.testing.assert_close(found.maps, own.finish(plain.signed, SIZE))
    signed = explain(m, X, layers="second", target=1, steps="signed")
    assert signed.maps.min() < 0
    with pytest.raises(MethodError, match="pytorch-grad-cam"):
        explain(m, X, layers="second", steps="captum")


def test_steps_of_ones_own_also_say_how_layers_are_fused():
    m = halving()
    own = Steps(layer_normalise="none", normalise="none")
    found = explain(m, X, layers=["first", "second"], target=1, steps=own)
    maps = {n: x.clamp_min(0) for n, x in found.layer_maps.items()}
    expected = camlucida.engine.maps.fuse(maps, SIZE)
    torch.testing.assert_close(found.maps, expected)


def test_signed_preset_keeps_the_signs_of_several_layers():
    """``.signed`` is before rectifying and ``.raw`` is rectified only where the steps rectify."""
    m = halving()
    found = explain(m, X, layers=["first", "second"], target=1, steps="signed")
    expected = camlucida.engine.maps.fuse(found.layer_maps, SIZE)
    torch.testing.assert_close(found.maps, expected)
    assert expected.min() < 0
    torch.testing.assert_close(found.signed, expected)
    torch.testing.assert_close(found.raw, expected)


def test_several_layers():
    m = halving()
    found = explain(m, X, method=LayerCAM(), layers=["first", m.second])
    assert found.layers == ("first", "second")
    assert found.layer_maps["first"].shape == (5, 7, 9)
    assert found.layer_maps["second"].shape == (5, 4, 5)
    assert found.maps.shape == (5, *SIZE)


# ------------------------------------------------------------------------------------------- images

PREPROCESS = Preprocess(size=SIZE, resize=SIZE, crop=False)


def photo(path=None):
    array = np.random.default_rng(0).integers(0, 255, (21, 30, 3), dtype=np.uint8)
    if path is not None:
        Image.fromarray(array).save(path)
    return array


def test_every_kind_of_image_gives_one_result(tmp_path):
    m = model().float()
    array = photo(tmp_path / "photo.png")
    picture = Image.fromarray(array)
    tensor = PREPROCESS(picture)
    path = tmp_path / "photo.png"
    expected = explain(m, tensor[None], layers="features").maps
    for images in (
        tensor, [tensor], array, picture, path, str(path), [path], [array], [picture], (picture,),
    ):  # fmt: skip
        found = explain(m, images, layers="features", preprocess=PREPROCESS)
        assert torch.equal(found.maps, expected)
    mixed = explain(m, [path, picture, array], layers="features", preprocess=PREPROCESS)
    assert len(mixed) == 3
    assert mixed.sources == (str(path), None, None)
    torch.testing.assert_close(mixed.maps, expected.expand(3, -1, -1), rtol=0, atol=1e-5)


def test_photos_take_the_models_precision():
    found = explain(model(), photo(), layers="features", preprocess=PREPROCESS)
    assert found.maps.dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        ([], ImageError, "no image"),
        (torch.zeros(0, 3, 7, 9), ImageError, r"\(0, 3, 7, 9\)"),
        (torch.zeros(7, 9), ImageError, r"\(7, 9\)"),
        ([torch.zeros(3, 7, 9), torch.zeros(3, 9, 9)], ImageError, "one shape"),
        ("nowhere.png", ImageError, "nowhere.png"),
        (torch.zeros(1, 3, 7, 9, dtype=torch.uint8), ModelError, "uint8"),
        ([torch.zeros(3, 7, 9), "photo.png"], CamlucidaError, "image"),
        (3, CamlucidaError, "image"),
        ([3], CamlucidaError, "image"),
    ],
)
def test_images_that_are_none(images, error, words):
    with pytest.raises(error, match=words):
        explain(model(), images, layers="features", preprocess=PREPROCESS)


def test_photos_need_a_preprocess():
    with pytest.raises(ImageError, match="Preprocess"):
        explain(model(), photo(), layers="features")


# ---------------------------------------------------------------------------------------- class names

NAMES = ["tabby cat, tabby", "dog", "car", "boat"]


def test_class_names(tmp_path):
    m = model()
    found = explain(m, X, target="dog", class_names=NAMES, layers="features")
    assert found.target.classes.tolist() == [1] * 5
    assert found.explained[0].startswith("dog, Logit")
    assert {p.name for p in found.predictions[0]} == set(NAMES)
    several = explain(
        m, X, target=["dog", 2, "boat", 0, 1], class_names=NAMES, layers="features", batch_size=2
    )
    assert several.target.classes.tolist() == [1, 2, 3, 0, 1]
    margin = explain(m, X, target=LogitMargin("car"), class_names=NAMES, layers="features")
    assert margin.target.classes.tolist() == [2] * 5
    file = tmp_path / "names.txt"
    file.write_text("\n".join(NAMES))
    assert explain(m, X, target="boat", class_names=file, layers="features").explained[0][:4] == (
        "boat"
    )


def test_unknown_class_name():
    with pytest.raises(TargetError, match="dog"):
        explain(model(), X, target="dogg", class_names=NAMES, layers="features")
    with pytest.raises(TargetError, match="class names"):
        explain(model(), X, target="dog", layers="features")


def test_predictions():
    m = model()
    found = explain(m, X, layers="features", top=2)
    p = m(X).softmax(1).detach()
    for n in range(5):
        assert [q.index for q in found.predictions[n]] == p[n].topk(2).indices.tolist()
        for q in found.predictions[n]:
            assert q.probability == pytest.approx(p[n, q.index].item(), abs=1e-6)
            assert q.logit == pytest.approx(m(X)[n, q.index].item(), abs=1e-6)
            assert q.name == f"class {q.index}"
    assert len(explain(m, X, layers="features", top=99).predictions[0]) == 4


# --------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "gradcm"}, MethodError, "nearest: .*gradcam"),
        ({"method": "gradcam++", "forms": "exp"}, MethodError, "did you mean 'form'"),
        ({"method": []}, MethodError, "no method"),
        ({"method": 3}, MethodError, "int"),
        ({"method": [GradCAM(), 3]}, MethodError, "int"),
        ({"method": GradCAM(), "form": "exp"}, MethodError, "set form on it"),
        ({"method": ["gradcam", "gradcam++"], "form": "exp"}, MethodError, "form"),
        ({"layers": "feature"}, LayerError, "nearest: 'features'"),
        ({"layers": "head.1"}, LayerError, "no feature map"),
        ({"target": 9}, TargetError, "class 9 does not exist"),
        ({"target": LogitMargin}, TargetError, r"LogitMargin\(\)"),
        ({"method": "saliency", "layers": "features"}, MethodError, "leave out layers"),
        ({"method": "diffgradcam", "target": Probability()}, MethodError, "LogitMargin"),
        ({"target": lambda z: z}, TargetError, "one value per image"),
    ],
)
def test_errors(options, error, words):
    with pytest.raises(error, match=words):
        explain(model(), X, **{"layers": "features", **options} if "layers" not in options and
                options.get("method") != "saliency" else options)  # fmt: skip


def test_the_model_must_be_one():
    with pytest.raises(CamlucidaError, match="function"):
        explain(lambda x: x, X)


@pytest.mark.parametrize(
    "target", [Probability(), LogProbability(), LogitMargin()], ids=lambda t: type(t).__name__
)
def test_single_output(target):
    """One number decides between two classes, unless it is a value."""
    m = model(m=1)
    found = explain(m, X, target=target, layers="features")
    assert found.target.classes.tolist() == [int(z > 0) for z in m(X)[:, 0]]
    assert {p.index for p in found.predictions[0]} == {0, 1}
    with pytest.raises(TargetError, match="value"):
        explain(m, X, target=target, layers="features", outputs="regression")
    value = explain(m, X, layers="features", outputs="regression")
    assert value.predictions == ((),) * len(X)
    assert torch.equal(value.target_values, m(X)[:, 0])


# ----------------------------------------------------------------------------------- several methods


def test_several_methods():
    m = model()
    found = explain(m, X, method=["gradcam", GradCAMpp(eps=1e-6), "saliency", GradCAM()])
    assert isinstance(found, Comparison)
    assert list(found) == ["gradcam", "gradcam++ (eps=1e-06)", "saliency", "gradcam (2)"]
    assert torch.equal(found["gradcam"].maps, explain(m, X).maps)
    assert torch.equal(found["gradcam (2)"].maps, found["gradcam"].maps)
    assert isinstance(explain(m, X, method=["gradcam"]), Comparison)


def test_labels_say_what_is_not_default():
    m = model()
    assert explain(m, X, method="diffgradcam", layers="features").label == "diffgradcam"
    found = explain(m, X, method="diffgradcam", aggregator="lse", layers="features")
    assert found.label == "diffgradcam (lse)"
    assert explain(m, X, method=SmoothGrad(n_samples=2)).label == "smoothgrad (n_samples=2)"


def test_diffgradcam_by_name_is_gradcam_on_the_margin():
    m = model()
    a = explain(m, X, method="diffgradcam", layers="features", target=1)
    b = explain(m, X, method="gradcam", layers="features", target=LogitMargin(1))
    assert torch.equal(a.maps, b.maps)
    assert not torch.allclose(a.maps, explain(m, X, layers="features", target=1).maps)


def test_methods_of_a_list_share_their_forward_passes():
    m = model()
    seen = []
    m.register_forward_hook(lambda *_: seen.append(1))
    names = ["gradcam", "hirescam", "layercam", "eigencam", "diffgradcam", "xgradcam"]
    explain(m, X, method="gradcam", layers="features")  # what is found out once is known now
    seen.clear()
    together = explain(m, X, method=names, layers="features")
    assert len(seen) == 1
    for name in names:
        alone = explain(m, X, method=name, layers="features")
        assert torch.equal(together[name].maps, alone.maps)
        assert torch.equal(together[name].target_values, alone.target_values)
        assert torch.equal(together[name].logits, alone.logits)
    assert len(seen) == 1 + len(names)


QUICK = {
    "fame": {"iterations": 3}, "rise": {"masks": 20}, "opticam": {"iterations": 3}, "sscam": {"samples": 2},
    "icam": {"n_perturb": 2}, "corrrise": {"masks": 20},
}  # fmt: skip


@pytest.mark.parametrize("name", [row.name for row in list_methods()])
def test_a_method_does_the_same_in_a_list(name):
    m = model()
    both = explain(m, X, method=["gradcam", (name, QUICK.get(name, {}))])
    if both.skipped:
        (reason,) = both.skipped.values()
        with pytest.raises(CamlucidaError) as refused:
            explain(m, X, method=(name, QUICK.get(name, {})))
        assert str(refused.value) == reason
        return
    alone = explain(m, X, method=(name, QUICK.get(name, {})))
    second = list(both.values())[1]
    assert torch.equal(second.maps, alone.maps)
    assert {k: v.shape for k, v in second.details.items()} == {
        k: v.shape for k, v in alone.details.items()
    }
    for key, value in alone.details.items():
        assert torch.allclose(second.details[key].double(), value.double(), equal_nan=True), key


def test_a_method_that_does_not_fit_costs_only_itself():
    m = model()
    both = explain(m, X, method=["legrad", "gradcam"])
    assert torch.equal(both["gradcam"].maps, explain(m, X, method="gradcam").maps)
    assert "attention" in both.skipped["legrad"]
    assert "left out: legrad" in repr(both)
    assert both.record()["legrad"] == {"skipped": both.skipped["legrad"]}
    with pytest.raises(KeyError, match="legrad was left out"):
        both["legrad"]
    with pytest.raises(MethodError, match="attention"):
        explain(m, X, method=["gradcam", "legrad"], strict=True)
    with pytest.raises(CamlucidaError, match="none of the methods"):
        explain(m, X, method=["legrad", "fggb"])


def test_what_concerns_all_methods_is_raised():
    with pytest.raises(TargetError, match="class 99"):
        explain(model(), X, method=["gradcam", "hirescam"], target=99)


def test_shared_passes_end_with_their_batch():
    m = model()
    names = ["gradcam", "hirescam"]
    whole = explain(m, X, method=names, layers="features")
    parts = explain(m, X, method=names, layers="features", batch_size=2)
    for name in names:
        assert torch.allclose(whole[name].maps, parts[name].maps, atol=1e-6)


def test_pairs_of_a_name_and_its_options():
    m = model()
    pair = ("diffgradcam", {"aggregator": "lse"})
    alone = explain(m, X, method=pair, layers="features")
    assert alone.label == "diffgradcam (lse)"
    both = explain(m, X, method=[pair, "gradcam"], layers="features")
    assert torch.equal(both["diffgradcam (lse)"].maps, alone.maps)
    assert set(explain(m, X, method=("gradcam", "hirescam"), layers="features")) == {
        "gradcam",
        "hirescam",
    }


def test_beside_methods_of_layers_those_of_the_input_go_without():
    found = explain(model(), X, method=["saliency", "gradcam"], layers="features")
    assert found["gradcam"].layers == ("features",)
    assert found["saliency"].layers == ("input",)


def test_progress():
    seen = []
    explain(
        model(), X, method=["gradcam", "hirescam"], layers="features", batch_size=2,
        progress=lambda *done: seen.append(done),
    )  # fmt: skip
    assert seen == [(2, 10), (4, 10), (6, 10), (8, 10), (9, 10), (10, 10)]


# ---------------------------------------------------------------------------------------- diagnostics


def test_a_healthy_map_has_no_messages():
    found = explain(model(seed=1), X, layers="features", outputs="classes:activation=logits")
    assert all(d.messages == () for d in found.diagnostics)


def test_disconnected_target():
    found = explain(model(), X, target=lambda z: torch.zeros(len(z)), layers="features")
    for d in found.diagnostics:
        assert d.disconnected == ("features",)
        assert "does not depend on layer 'features'" in d.messages[0]
    assert not found.maps.any()


def test_saturated_softmax():
    m = model()
    with torch.no_grad():
        m.head[1].bias[2] = 1000
    found = explain(m, X, target=Probability(), layers="features")
    assert all(d.saturated for d in found.diagnostics)
    assert any("lse" in message for message in found.diagnostics[0].messages)
    logits = explain(m, X, layers="features", outputs="classes:activation=logits")
    assert not any("softmax" in m for m in logits.diagnostics[0].messages)
    # The advice helps.
    better = explain(m, X, target=LogitMargin(aggregator="lse"), layers="features")
    assert better.signed.any()


def test_dead_channels():
    m = model()
    with torch.no_grad():
        m.features[0].weight[1:3] = 0
        m.features[0].bias[1:3] = -1
    found = explain(m, X, layers="features")
    assert found.diagnostics[0].dead_channels == {"features": (2, 4)}
    with torch.no_grad():
        m.features[0].weight[:] = 0
        m.features[0].bias[:] = -1
    found = explain(m, X, layers="features")
    assert "all 4 channels of layer 'features' are zero" in found.diagnostics[0].messages


def test_raw_range():
    found = explain(model(), X, layers="features")
    for n, d in enumerate(found.diagnostics):
        assert d.raw_min == pytest.approx(found.signed[n].min().item())
        assert d.raw_max == pytest.approx(found.signed[n].max().item())


def test_exp_logit_target_works_end_to_end():
    found = explain(model(), X, method="gradcam++", form="true", target=ExpLogit(1),
                    layers="features")  # fmt: skip
    assert found.maps.isfinite().all()


# ------------------------------------------------------------------------------------------ real models


def test_a_model_in_training_mode_is_explained_in_evaluation_mode():
    m = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(),
        nn.Linear(4 * 5 * 7, 2),
    ).double()  # fmt: skip
    m.train()
    a = explain(m, X).maps
    assert torch.equal(a, explain(m, X).maps)
    assert m.training
    m.eval()
    assert torch.equal(a, explain(m, X).maps)


def test_a_model_that_writes_to_its_input_does_not_change_the_images():
    """``x.sub_(mean)`` in the forward pass: the second method must see what the first one saw."""

    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model()

        def forward(self, x):
            return self.inner(x.sub_(0.5).mul_(2))

    x = X.clone()
    both = explain(
        Normalising(), x, method=["gradcam", GradCAM()], layers="inner.features", target=1
    )
    first, second = both.values()
    assert torch.equal(x, X)
    assert torch.equal(first.maps, second.maps)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((2, 1, 7, 9), "takes images with 3 channels"), ((2, 7, 9, 3), r"permute\(0, 3, 1, 2\)")],
)
def test_images_with_another_number_of_channels(shape, words):
    with pytest.raises(ImageError, match=words):
        explain(model(), torch.rand(shape, dtype=torch.float64))
