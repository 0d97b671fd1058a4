"""The four cases: what is measured of each photo, what is kept, and the page."""

import io
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from camlucida import explain
from camlucida.common.errors import CamlucidaError, ImageError, MethodError
from camlucida.data.folders import open_folder
from camlucida.data.preprocess import Preprocess
from camlucida.methods.icam import ICAM
from camlucida.metrics.localisation import saliency_score
from camlucida.models import LoadedModel
from camlucida.studies.icam import cases, examples
from camlucida.studies.icam.four_cases import run as measure
from camlucida.studies.icam.four_cases.patchiness import VARIANTS
from camlucida.studies.icam.four_cases.run import box_mask
from camlucida.studies.icam.four_cases.selection import as_published
from camlucida.studies.icam.four_cases.study import DIALLED
from reference import networks

FAST = ICAM(n_perturb=1)


@pytest.fixture
def net():
    return networks.small()


@pytest.fixture
def model(net):
    with torch.no_grad():
        net[-1].weight.mul_(8)
    names = ("red", "green", "<blue>")
    return LoadedModel(net, "tiny", Preprocess(size=(12, 12), resize=None), names)


@pytest.fixture
def folder(tmp_path):
    for label in range(3):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for seed in range(3):
            pixels = np.random.default_rng(10 * label + seed).integers(0, 256, (12, 16, 3))
            file = tmp_path / "photos" / str(label) / f"{label}{seed}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path / "photos"


# ---- boxes --------------------------------------------------------------------------------------


def test_boxes_map_through_the_crop():
    # A photo of 200 x 100, of which the model sees the middle 100 x 100 as 10 x 10.
    mask = box_mask([(60, 0, 80, 50), (0, 0, 40, 100)], (50, 0, 150, 100), (10, 10))
    assert mask.sum() == 2 * 5
    assert mask[:5, 1:3].all()
    assert not box_mask([(0, 0, 40, 100)], (50, 0, 150, 100), (10, 10)).any()


def test_saliency_score():
    mask = torch.tensor([[[True, False]]])
    assert saliency_score(torch.tensor([[[0.2, 0.6]]]), mask) == pytest.approx(0.25)
    assert saliency_score(torch.zeros(1, 1, 2), mask) == 0


# ---- the study ----------------------------------------------------------------------------------


def test_every_photo_is_in_the_right_case(model, folder, tmp_path):
    (folder / "0" / "broken.png").write_bytes(b"no")
    (tmp_path / "boxes.csv").write_text(
        "file,xmin,ymin,xmax,ymax\n00.png,0,0,16,12\n11.png,0,0,1,1\n12.png,2,0,8,12\n"
    )
    study = cases(model, folder, boxes=tmp_path / "boxes.csv", method=FAST, dial=2, batch_size=4)
    assert len(study.photos) == 9
    explanation = explain(model, [p.file for p in study.photos], method=FAST)
    for photo, predictions in zip(study.photos, explanation.predictions, strict=True):
        best = predictions[0]
        right = best.name == photo.true_class
        assert photo.case == (
            f"{'confident' if best.probability >= 0.5 else 'unsure'}-{'right' if right else 'wrong'}"
        )
        assert photo.confidence == pytest.approx(best.probability, rel=1e-5)
    by_name = {p.file[-6:]: p for p in study.photos}
    assert by_name["00.png"].saliency == pytest.approx(1)
    assert by_name["11.png"].saliency is None  # the crop leaves the box out
    assert 0 < by_name["12.png"].saliency < 1
    assert by_name["10.png"].saliency is None
    assert sum(row["photos"] for row in study.table()) == 9
    assert [p.name for p, _ in study.skipped] == ["broken.png"]
    assert study.dial.images == 2
    assert len(study.dial.patchiness["exact"]) == len(DIALLED)
    assert [row["variant"] for row in study.patchy()] == list(VARIANTS)
    assert json.loads(json.dumps(study.to_dict()))["photos"]


def test_the_page_is_self_contained_and_escaped(model, folder):
    page = cases(model, folder, method=FAST, dial=0).html(most=1)
    assert page.count("<section") == 5
    assert "White frames" not in page, "there are no boxes"
    assert "&lt;blue&gt;" in page
    assert "<blue>" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert all("alt=" in tag for tag in re.findall(r"<img[^>]*>", page))


def test_a_seed_gives_the_same_study(model, folder):
    one, two = (cases(model, folder, method=FAST, dial=1).to_dict() for _ in range(2))
    assert one == two


def test_errors(model, folder):
    with pytest.raises(MethodError, match="threshold"):
        cases(model, folder, threshold=1.5)
    regression = nn.Sequential(*list(model.module)[:-1], nn.Linear(5, 1)).eval()
    with pytest.raises(CamlucidaError):
        cases(LoadedModel(regression, "r", model.preprocess, None), folder, method=FAST, dial=0)
    for file in folder.glob("*/*.png"):
        file.write_bytes(b"no")
    with pytest.raises(ImageError, match="can be read"):
        cases(model, folder, method=FAST, dial=0)


class Whiteout(nn.Module):
    """NaN for a white photo."""

    def forward(self, x):
        white = (x > 1.5).flatten(1).all(1)
        return torch.where(white[:, None, None, None], torch.nan, x)


def test_a_photo_that_the_model_fails_on_is_left_out(model, folder):
    Image.new("RGB", (12, 12), "white").save(folder / "1" / "white.png")
    broken = LoadedModel(
        nn.Sequential(Whiteout(), *model.module).eval(), "w", model.preprocess, model.class_names
    )
    study = cases(broken, folder, method=FAST, dial=1)
    assert len(study.photos) == 9
    assert [(p.name, "NaN" in reason) for p, reason in study.skipped] == [("white.png", True)]
    assert all(0 < p.confidence <= 1 for p in study.photos)
    assert study.html()


def test_pictures_have_the_shape_of_the_input(model, tmp_path):
    (tmp_path / "photos" / "0").mkdir(parents=True)
    Image.new("RGB", (40, 20), "grey").save(tmp_path / "photos" / "0" / "a.png")
    (tmp_path / "boxes.csv").write_text("file,xmin,ymin,xmax,ymax\na.png,20,0,30,20\n")
    wide = LoadedModel(model.module, "wide", Preprocess(size=(12, 24), resize=(12, 24)), None)
    study = cases(wide, tmp_path / "photos", boxes=tmp_path / "boxes.csv", method=FAST, dial=0)
    seen = np.asarray(Image.open(io.BytesIO(study.photos[0].seen)).convert("L"))
    assert seen.shape == (112, 224)
    edges = np.flatnonzero(seen[56] > 230)  # the white frame, half and three quarters along
    assert abs(edges.min() - 112) <= 2
    assert abs(edges.max() - 168) <= 2


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_a_file_name_that_is_no_text_can_be_written(model, folder):
    (folder / "0" / "00.png").rename(folder / "0" / os.fsdecode(b"\xff.png"))
    study = cases(model, folder, method=FAST, dial=0)
    assert "\N{REPLACEMENT CHARACTER}.png" in study.html().encode().decode()


# ---- what is kept -------------------------------------------------------------------------------


@pytest.fixture
def explained(monkeypatch):
    """How many photos were explained since it was last asked, the other class of wrong ones aside."""
    counts = []

    def counted(model, pictures, **options):
        counts.append(len(pictures) if "batch_size" in options else 0)
        return explain(model, pictures, **options)

    monkeypatch.setattr(measure, "explain_photos", counted)

    def asked():
        total = sum(counts)
        counts.clear()
        return total

    return asked


def test_a_stopped_study_goes_on(model, folder, tmp_path, explained):
    (folder / "0" / "broken.png").write_bytes(b"no")
    (tmp_path / "boxes.csv").write_text("file,xmin,ymin,xmax,ymax\n00.png,0,0,9,9\n")
    options = {"boxes": tmp_path / "boxes.csv", "method": FAST, "dial": 3, "batch_size": 2}
    whole = cases(model, folder, **options)
    assert explained() == 9

    def stop(done, _total):
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cases(model, folder, cache=tmp_path / "kept", progress=stop, **options)
    assert explained() == 5  # and the broken one
    seen = []
    resumed = cases(
        model, folder, cache=tmp_path / "kept", progress=lambda *a: seen.append(a), **options
    )
    assert explained() == 4
    assert seen == [(2, 10), (4, 10), (6, 10), (8, 10), (10, 10)]
    assert resumed == whole  # with the pictures
    assert resumed.to_dict() == whole.to_dict()
    assert [p.name for p, _ in resumed.skipped] == ["broken.png"]
    assert cases(model, folder, cache=tmp_path / "kept", **options) == whole
    assert explained() == 0


def test_what_is_kept_is_used_for_the_same_thing_only(model, folder, tmp_path, explained):
    options = {"method": FAST, "dial": 0, "batch_size": 9, "cache": tmp_path / "kept"}
    first = cases(model, folder, **options)
    assert explained() == 9
    sure = cases(model, folder, threshold=0.999, **options)
    assert explained() == 0
    assert [p.file for p in sure.photos] == [p.file for p in first.photos]
    assert all(p.case.startswith("unsure") for p in sure.photos)
    named = LoadedModel(model.module, "n", model.preprocess, ("a", "b", "c"))
    grey = LoadedModel(model.module, "g", Preprocess(size=(12, 12), resize=14), model.class_names)
    for changed in (
        {"seed": 1},
        {"dial": 1},
        {"method": ICAM(n_perturb=2)},
        {"layers": ["1"]},
    ):
        cases(model, folder, **{**options, **changed})
        assert explained() == 9, changed
    for other in (named, grey):
        cases(other, folder, **options)
        assert explained() == 9, other.name
    (tmp_path / "boxes.csv").write_text("file,xmin,ymin,xmax,ymax\n00.png,0,0,9,9\n")
    cases(model, folder, boxes=tmp_path / "boxes.csv", **options)
    assert explained() == 9
    os.utime(folder / "0" / "00.png", ns=(1, 1))
    cases(model, folder, **options)
    assert explained() == 9
    with torch.no_grad():
        model.module[0].weight.mul_(1.01)
    cases(model, folder, **options)
    assert explained() == 9
    for file in (tmp_path / "kept" / "parts").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    cases(model, folder, **options)
    assert explained() == 9


def test_a_cache_that_cannot_be_written(model, folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CamlucidaError, match="cannot write"):
        cases(model, folder, method=FAST, dial=0, cache=tmp_path / "file")


# ---- both classes of a wrong prediction, and the paper's selection --------------------------------


def test_a_wrong_prediction_has_both_maps_and_what_is_near_in_each(model, folder):
    study = cases(model, folder, method="gradcam", train=folder, nearest=2)
    wrong = [photo for photo in study.photos if photo.case.endswith("wrong")]
    assert wrong
    for photo in study.photos:
        assert bool(photo.sides) == photo.case.endswith("wrong")
    for photo in wrong:
        predicted, true = photo.sides
        assert (predicted.role, true.role) == ("predicted", "true")
        assert (predicted.class_name, true.class_name) == (photo.predicted_class, photo.true_class)
        assert predicted.mapped == photo.mapped
        picture = Image.open(photo.file)
        label = model.class_names.index(photo.true_class)
        own = explain(model, picture, method="gradcam", target=label)
        assert true.mapped == measure.jpeg(measure.drawn(own, ())[1])
        found = examples(model, photo.file, folder, true=label, k=2)
        near = {side.class_name: [n.distance for n in side.neighbours] for side in found.sides}
        for side in photo.sides:
            assert [n.distance for n in side.nearest] == pytest.approx(near[side.class_name])
            assert all(n.file != photo.file for n in side.nearest)
    page = study.html()
    assert page.count("for the predicted:") == page.count("for the true:") == len(wrong)
    assert page.count("near, true:") == sum(len(photo.sides[1].nearest) for photo in wrong)
    shutil.rmtree(folder / "0")
    for photo in cases(model, folder, method="gradcam", train=folder).photos:
        missing = any(side.class_name == "red" for side in photo.sides)
        assert any("no training photo of red" in text for text in photo.messages) == missing
    told = json.loads(json.dumps(study.to_dict()["photos"]))
    assert [len(photo["sides"]) for photo in told] == [len(p.sides) for p in study.photos]


def test_another_class_is_shown_beside_both(model, folder):
    study = cases(model, folder, explain="red")
    wrong = [photo for photo in study.photos if photo.case.endswith("wrong")]
    plain = [p for p in wrong if "red" not in (p.predicted_class, p.true_class)]
    assert plain
    assert all(len({p.mapped, *(side.mapped for side in p.sides)}) == 3 for p in plain)
    assert study.html().count(">its map<") == len(study.photos) - len(wrong) + len(plain)


def slow_selection(rows, classes, most):
    """F1 by precision and recall, and the most confident photos of the best classes."""
    scores = {}
    for one in {label for _, label, _, _ in rows}:
        hit = sum(label == one and said == one for _, label, said, _ in rows)
        said_so = sum(said == one for _, _, said, _ in rows)
        precision = hit / said_so if said_so else 0.0
        recall = hit / sum(label == one for _, label, _, _ in rows)
        total = precision + recall
        scores[one] = 2 * precision * recall / total if total else 0.0
    best = sorted(scores, key=lambda one: (-scores[one], one))[:classes]
    kept = set()
    for one in best:
        own = sorted((row for row in rows if row[1] == one), key=lambda row: -row[3])
        kept |= {row[0] for row in own[:most]}
    return kept, {one: scores[one] for one in best}


def test_the_papers_selection(model, folder):
    data = open_folder(folder, model.class_names, labels=True)
    rows = []
    for sample in data:
        with torch.no_grad():
            p = model.module(model.preprocess(sample.picture())[None]).softmax(1)[0]
        rows.append((sample.key, sample.label, int(p.argmax()), float(p.max())))
    wanted, scores = slow_selection(rows, 2, 2)
    found, own = as_published(model, data, [], classes=2, most=2, batch_size=4)
    assert {sample.key for sample in found} == wanted
    assert own == pytest.approx(scores)
    study = cases(model, folder, selection="paper")
    assert (
        len(study.photos) == 9
    )  # three photos of three classes, fewer than the paper's ten of five
    assert set(study.selection) == set(model.class_names)
    assert "highest F1" in study.html()
    with pytest.raises(MethodError, match="paper"):
        cases(model, folder, selection="best")
