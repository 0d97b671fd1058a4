"""Pairs out of one photo per person, and the grid of variations, with faces placed by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from camlucida import CamlucidaError, ImageError
from camlucida.faces import bench_pairs
from camlucida.faces.bench_pairs import varied_pairs
from camlucida.faces.detect import Face
from camlucida.faces.photos import FacePhoto
from camlucida.methods import FAME, GradCAM
from camlucida.studies.published import fame_figure3
from camlucida.studies.published.fame_table1 import fame_table1
from reference.embedders import SIDE, picture, small

POINTS = np.array([[40.0, 50], [74, 50], [57, 70], [43, 90], [71, 90]])


@pytest.fixture(autouse=True)
def _placed(monkeypatch):
    def faces(photo):
        if "faceless" in str(photo):
            raise ImageError("no face was found")
        return (Face((20.0, 20.0, 95.0, 110.0), POINTS, 1.0, "5"),)

    monkeypatch.setattr(bench_pairs, "find_faces", faces)
    monkeypatch.setattr(fame_figure3, "find_faces", faces)


@pytest.fixture
def photos(tmp_path):
    made = []
    for i, name in enumerate(("ann", "bob", "cleo", "dan")):
        for n in (1, 2):
            file = tmp_path / name / f"{'faceless' if name == 'bob' and n == 1 else 'photo'}{n}.png"
            file.parent.mkdir(exist_ok=True)
            picture(10 * i + n, 120).save(file)
            made.append(FacePhoto(name, file))
    return made


def test_pairs_are_balanced_and_repeat(photos):
    found = varied_pairs(small(), photos, per_person=3, variations=("glasses", "small"))
    assert found.people == ("ann", "bob", "cleo", "dan")
    assert [p.same for p in found.pairs] == [True, False] * 12
    assert found.skipped == ("bob: no face was found",)
    kinds = [p.key.split()[1] for p in found.pairs if p.same]
    assert kinds.count("glasses") == kinds.count("small") == 6
    for genuine, impostor in zip(found.pairs[::2], found.pairs[1::2], strict=True):
        assert genuine.person == impostor.person == genuine.key.split()[0]
        assert genuine.key.endswith(f"- {genuine.person}")
        assert not impostor.key.endswith(f"- {impostor.person}")
        probe, gallery = genuine.load()
        other, against = impostor.load()
        assert np.array_equal(np.asarray(probe.image), np.asarray(other.image))
        assert not np.array_equal(np.asarray(gallery.image), np.asarray(against.image))
        assert not np.array_equal(np.asarray(gallery.image), np.asarray(probe.image))
    again = varied_pairs(small(), photos, per_person=3, variations=("glasses", "small"))
    assert [p.key for p in again.pairs] == [p.key for p in found.pairs]
    first, second = found.pairs[4].load()[0], again.pairs[4].load()[0]
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
    other = varied_pairs(small(), photos, per_person=3, seed=5)
    assert [p.key for p in other.pairs] != [p.key for p in found.pairs]
    assert len(varied_pairs(small(), photos, people=2).people) == 2


def test_what_cannot_be_done_is_said(photos):
    with pytest.raises(CamlucidaError, match="unknown variation 'hat'"):
        varied_pairs(small(), photos, variations=("hat",))
    with pytest.raises(CamlucidaError, match="no variation"):
        varied_pairs(small(), photos, variations=())
    with pytest.raises(CamlucidaError, match="faces of 1 people"):
        varied_pairs(small(), photos[:2])


def test_the_table_on_the_stand_in(photos, tmp_path):
    methods = [("fame", {"iterations": 1, "sigma": 0.0}), "gradcam"]
    out = tmp_path / "run"
    found = fame_table1(
        standin=True, backbone=small(), photos=photos[0].path.parent.parent, methods=methods,
        per_person=1, limit=6, out=out,
    )  # fmt: skip
    assert found.data == "standin"
    assert len(found.report.keys) == 6
    assert found.published == {}
    assert found.facts["people"] == 4
    assert any("stand-in" in note for note in found.to_dict()["notes"])
    assert (out / "plan.json").is_file()
    with pytest.raises(CamlucidaError, match="one of them"):
        fame_table1(standin=True, data=".", backbone=small())
    with pytest.raises(CamlucidaError, match="one of them"):
        fame_table1(backbone=small())


def test_grid_of_variations(photos, tmp_path):
    found = fame_figure3.variation_grid(
        small(), photos[0].path, [FAME(iterations=2, sigma=1.0, kernel=5), GradCAM()],
        variations=("glasses", "light"),
    )  # fmt: skip
    assert list(found.maps) == ["fame", "gradcam"]
    assert list(found.probes) == ["glasses", "light"]
    assert found.scores.shape == (2,)
    shares = found.share_on_cover()
    assert list(shares["fame"]) == ["glasses"]
    cover = torch.from_numpy(found.covered["glasses"]).double()
    mask = F.interpolate(cover[None, None], (SIDE, SIDE))[0, 0]
    maps = found.maps["fame"].double()
    on = [float((m * mask).sum() / m.sum()) for m in maps]
    assert shares["fame"]["glasses"] == pytest.approx(on[0] / on[1], rel=1e-5)
    found.figure().savefig(tmp_path / "grid.png")
