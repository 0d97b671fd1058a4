"""Pair explanations: which map is which, on which side, and what is said about hopeless pairs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import camlucida
from camlucida import CamlucidaError, CosineSimilarity, MethodError, NegativeDistance
from camlucida.faces.align import Crop, inverse
from camlucida.faces.pair import CARE, KINDS, SIDES, explain_pair
from camlucida.faces.pair_side import PairSide, face_photo, photo_overlay
from camlucida.faces.protocol import threshold_at
from camlucida.faces.similarity_maps import similarity_maps
from camlucida.methods import FAME, CorrRISE, GradCAM, GradCAMEW
from camlucida.targets import Negated
from reference import faces as slow
from reference.embedders import SIDE, picture, small

FAST = FAME(iterations=4, sigma=1.0, kernel=5, input_space="pixel")


@pytest.fixture
def embedder():
    return small()


def crops():
    return Crop(picture(1)), Crop(picture(2))


def test_each_side_is_explained_against_the_other(embedder):
    a, b = crops()
    found = explain_pair(embedder, a, b, method=FAST)
    x = embedder.inputs([a, b])
    embeddings = embedder.embed(x)
    assert found.similarity == pytest.approx(
        torch.cosine_similarity(embeddings[0], embeddings[1], dim=0).item()
    )
    for i, side in enumerate(SIDES):
        target = CosineSimilarity(embeddings[1 - i])
        bare = []
        for loss in ("target", "raise"):
            alone = camlucida.explain(
                embedder, x[i], target=target,
                method=FAME(iterations=4, sigma=1.0, kernel=5, input_space="pixel", loss=loss),
            )  # fmt: skip
            moved = alone.method.steps.finish(alone.signed, x.shape[2:])
            torch.testing.assert_close(moved, alone.maps)
            steps = replace(alone.method.steps, normalise="none")
            moved = steps.finish(alone.signed, x.shape[2:])[0]
            bare.append(moved - (moved.min() if alone.method.steps.normalise == "minmax" else 0))
        largest = max(map(torch.max, bare))
        for kind, moved in zip(KINDS, bare, strict=True):
            torch.testing.assert_close(found["fame"].map(side, kind), moved / largest)
    swapped = explain_pair(embedder, b, a, method=FAST)
    torch.testing.assert_close(swapped["fame"].maps.flip(0), found["fame"].maps)
    assert swapped.similarity == pytest.approx(found.similarity)


def test_one_step_moves_the_same_pixels_up_and_down(embedder):
    found = explain_pair(embedder, *crops(), method=("fame", {"iterations": 1}))
    only = found["fame (iterations=1)"]
    torch.testing.assert_close(only.map("probe", "similar"), only.map("probe", "dissimilar"))
    assert only.facts["options"]["input_space"] == "pixel"


def test_corrrise_and_fggb_are_the_two_parts_of_one_map(embedder):
    found = explain_pair(
        embedder, *crops(), threshold=0.3, seed=7,
        method=[("corrrise", {"masks": 40}), ("fggb", {"sigma": 0.0})],
    )  # fmt: skip
    corr = found["corrrise (masks=40)"]
    assert corr.facts["options"]["mask_seed"] == 7
    for side in (0, 1):
        signed = corr.signed[side]
        plus, minus = signed.clamp_min(0), (-signed).clamp_min(0)
        torch.testing.assert_close(corr.maps[side, 0], plus / signed.abs().max())
        torch.testing.assert_close(corr.maps[side, 1], minus / signed.abs().max())
        assert not (corr.maps[side, 0] * corr.maps[side, 1]).any()
    fggb = found["fggb (sigma=0.0)"]
    x = embedder.inputs([side.crop for side in found.sides])
    embeddings = embedder.embed(x)
    pixels = embedder.preprocess.denormalise(x)
    wanted, weights = slow.fggb(
        lambda p: embedder.module(embedder.preprocess.normalise(p)), pixels[0], embeddings[1], 0.3
    )
    assert sum(weights) == pytest.approx(found.similarity - 0.3)
    np.testing.assert_allclose(fggb.signed[0].numpy(), wanted, atol=1e-10)


def test_activation_maps_hold_the_norms_and_explain_the_negative_too(embedder):
    a, b = crops()
    found = explain_pair(embedder, a, b, method=[GradCAM(), GradCAMEW()])
    x = embedder.inputs([a, b])
    reference = embedder.embed(x)[1]
    target = CosineSimilarity(reference, detach_norms=True)
    alone = camlucida.explain(embedder, x[0], method=GradCAM(), target=target, layers="last")
    strength = found["gradcam"].facts["sides"]["probe"]["strength"]
    similar = alone.maps[0] * strength["similar"]
    torch.testing.assert_close(found["gradcam"].map("probe", "similar"), similar)
    # Minus the similarity turns the signs of Grad-CAM's map around.
    opposite = camlucida.explain(
        embedder, x[0], method=GradCAM(), target=Negated(target), layers="last"
    )
    torch.testing.assert_close(opposite.signed, -alone.signed)
    dissimilar = opposite.maps[0] * strength["dissimilar"]
    torch.testing.assert_close(found["gradcam"].map("probe", "dissimilar"), dissimilar)
    assert found["gradcam"].facts["detach_norms"] is True
    assert any("only the similar map" in m for m in found["gradcam"].messages[0])
    other = CosineSimilarity(reference)
    attached = camlucida.explain(embedder, x[0], method=GradCAM(), target=other, layers="last")
    assert not torch.allclose(attached.signed, alone.signed)
    dot = camlucida.explain(
        embedder, x[0], method=GradCAM(), layers="last", target=camlucida.DotProduct(reference)
    )
    torch.testing.assert_close(dot.maps, alone.maps)


def test_a_distance_is_explained_by_its_square(embedder):
    embedder = small("distance", threshold=-3.0)
    found = explain_pair(embedder, *crops(), method=[FAST, "fggb"])
    x = embedder.inputs([side.crop for side in found.sides])
    embeddings = embedder.embed(x)
    distance = (embeddings[0] - embeddings[1]).norm().item()
    assert found.similarity == pytest.approx(-distance)
    assert found.match is (distance <= 3)
    one = similarity_maps(embedder, x, embeddings.flip(0), "fggb")
    assert one.values.tolist() == pytest.approx([-(distance**2)] * 2)
    assert one.facts["options"]["theta"] == -9.0
    assert one.facts["target"] == "NegativeDistance"


def test_verdict(embedder):
    found = explain_pair(embedder, *crops(), method=FAST, threshold=-1.0)
    assert found.match is True
    assert found.verdict.endswith(">= -1.000: match")
    assert explain_pair(embedder, *crops(), method=FAST, threshold=0.9999).match is False
    unknown = explain_pair(small(threshold=None), *crops(), method=FAST)
    assert unknown.match is None
    assert "no threshold" in unknown.verdict
    for nothing in (float("nan"), float("inf")):
        with pytest.raises(CamlucidaError, match="finite"):
            explain_pair(embedder, *crops(), method=FAST, threshold=nothing)
        with pytest.raises(CamlucidaError, match="finite"):
            threshold_at(nothing, [0.1, 0.9], [False, True])


# ------------------------------------------------------------------------------------------- diagnostics


def test_identical_photos_are_named(embedder):
    a, _ = crops()
    found = explain_pair(embedder, a, a, method=FAST)
    assert any("same embedding" in m for m in found.messages)
    distance = explain_pair(small("distance", -1.0), a, a, method=FAST)
    assert any("same embedding" in m for m in distance.messages)
    assert any("no small change" in m for m in distance["fame"].messages[0])
    assert distance["fame"].maps.isfinite().all()


def test_epsilon_stops_a_distance_at_once():
    method = FAME(iterations=4, epsilon=0.01, input_space="pixel")
    found = explain_pair(small("distance", -1.0), *crops(), method=method)
    assert not found["fame"].map("probe", "similar").any()
    assert any("every negative distance" in m for m in found["fame"].messages[0])


def test_tiny_and_turned_faces_are_named():
    turn = np.deg2rad(40) * 1.0
    matrix = 4 * np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0]])
    side = PairSide(Crop(picture(1), matrix, (60, 50)))
    assert "enlarged 4.0 times" in side.messages[0]
    assert "turned by 40 degrees" in side.messages[1]
    assert PairSide(Crop(picture(1))).messages == ()


def test_methods_that_explain_classes_are_refused(embedder):
    with pytest.raises(MethodError, match="LogitMargin"):
        explain_pair(embedder, *crops(), method="diffgradcam")
    with pytest.raises(MethodError, match="unknown method"):
        explain_pair(embedder, *crops(), method="fam")
    with pytest.raises(CamlucidaError, match="no method"):
        explain_pair(embedder, *crops(), method=[])


# ------------------------------------------------------------------------------------ pictures and files


def test_a_map_lies_on_the_photo_where_the_face_was():
    crop = Image.new("RGB", (SIDE, SIDE), "white")
    photo = Image.new("RGB", (100, 80), "white")
    # The crop is the square of 40 pixels from (30, 20), at half its size.
    matrix = np.array([[0.5, 0, -15 - 0.25], [0, 0.5, -10 - 0.25]])
    corners = inverse(matrix)
    assert corners[:, :2] @ (-0.5, -0.5) + corners[:, 2] == pytest.approx([29.5, 19.5])
    side = PairSide(Crop(crop, matrix, (100, 80)), photo)
    drawn = np.asarray(photo_overlay(side, torch.ones(SIDE, SIDE))).astype(int)
    inside = np.zeros((80, 100), bool)
    inside[20:60, 30:70] = True
    assert np.ptp(drawn[inside], axis=0).max() == 0
    assert (drawn[~inside] == 64).all()
    large = PairSide(Crop(crop, matrix / 40 + [[0, 0, 0], [0, 0, 0]], None), photo)
    with pytest.raises(CamlucidaError, match="without its photo"):
        photo_overlay(PairSide(Crop(crop)), torch.ones(4, 4))
    assert large.crop.photo is None


def test_large_photos_are_drawn_small_with_the_map_in_place():
    photo = Image.new("RGB", (2048, 1024), "white")
    matrix = np.array([[SIDE / 512, 0, -1024 * SIDE / 512], [0, SIDE / 512, -256 * SIDE / 512]])
    side = PairSide(Crop(Image.new("RGB", (SIDE, SIDE)), matrix, photo.size), photo)
    drawn = np.asarray(photo_overlay(side, torch.ones(SIDE, SIDE)))
    assert drawn.shape == (512, 1024, 3)
    rows, columns = np.nonzero((drawn != 64).any(2))
    assert abs(rows.min() - 128) <= 8
    assert abs(rows.max() - 383) <= 8
    assert abs(columns.min() - 512) <= 8
    assert abs(columns.max() - 767) <= 8


def test_save(embedder, tmp_path):
    found = explain_pair(
        embedder, *crops(), method=[FAST, CorrRISE(masks=10), CorrRISE(masks=12)], threshold=0.1
    )
    assert list(found) == ["fame", "corrrise", "corrrise (2)"]
    assert {p.name for p in found.save(tmp_path / "few").values()} == {
        "pair.png", "pair.npz", "pair.json",
    }  # fmt: skip
    files = found.save(tmp_path / "out", overlays=True)
    record = json.loads(files["record"].read_text())
    assert record["care"] == CARE
    assert record["match"] is found.match
    assert [m["label"] for m in record["methods"]] == list(found)
    with np.load(files["maps"], allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["fame/maps"], found["fame"].maps.numpy())
        assert arrays["corrrise (2)/signed"].shape == (2, SIDE, SIDE)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"pair.png", "pair.npz", "pair.json", "fame.gallery.dissimilar.png"} <= names
    assert len(names) == 3 + 3 * 4
    assert not any(name.startswith(".") for name in names)


def test_photos_are_read_aligned_and_refused(embedder, tmp_path):
    file = tmp_path / "a.png"
    picture(1).save(file)
    side = face_photo(embedder, file, aligned=True)
    assert side.source == str(file)
    assert side.photo is None
    points = [[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]]
    picture(3, 112).save(file)
    placed = face_photo(embedder, file, landmarks=points)
    assert placed.crop.size == (112, 112)
    assert placed.photo is not None
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(CamlucidaError, match="not an image"):
        face_photo(embedder, tmp_path / "b.png")


def test_progress(embedder):
    seen = []
    explain_pair(
        embedder, *crops(), method=[FAST, GradCAM()], progress=lambda d, t: seen.append(d / t)
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_negated_is_minus():
    target = NegativeDistance(torch.randn(3, 4))
    outputs = torch.randn(3, 4)
    index = torch.tensor([2, 0])
    minus = Negated(target).for_images(3)
    torch.testing.assert_close(minus(outputs), -target(outputs))
    torch.testing.assert_close(minus.take(index)(outputs[index]), -target(outputs)[index])
    assert minus.describe()["of"]["target"] == "NegativeDistance"


def test_both_maps_of_a_face_have_one_scale(embedder):
    for method in (FAST, CorrRISE(masks=10), GradCAM()):
        found = explain_pair(embedder, *crops(), method=method, noise=False)
        (maps,) = found.methods
        assert maps.maps.amax((1, 2, 3)).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_maps_that_differ_by_noise_only_say_so(embedder):
    found = explain_pair(embedder, *crops(), method=["saliency", CorrRISE(masks=10)])
    saliency, corrrise = found.methods
    # |g| is the same for a similarity and its negative
    assert saliency.facts["sides"]["probe"]["alike"] == pytest.approx(1)
    assert saliency.facts["sides"]["probe"]["reproduced"] <= 1
    for side in (0, 1):
        assert "within the method's own noise" in saliency.messages[side][-1]
        assert "within the noise" in saliency.apart[side]
        assert "within the noise" not in corrrise.apart[side]
        assert not any("noise" in text for text in corrrise.messages[side])
    quick = explain_pair(embedder, *crops(), method="saliency", noise=False)
    assert quick["saliency"].facts["sides"]["probe"]["reproduced"] is None
