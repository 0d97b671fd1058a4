"""Table 1 of the walls paper: whose numbers are printed, and that they are not another model's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from camlucida import CamlucidaError
from camlucida.cli import main
from camlucida.data.digits import Digits
from camlucida.data.preprocess import Preprocess
from camlucida.data.regions import Region
from camlucida.data.stack_mix import StackMix
from camlucida.models import LoadedModel
from camlucida.models.masked_vgg import MaskedVGG, load_masked_vgg
from camlucida.studies.published.wall_table1 import stacks as made_stacks
from camlucida.studies.published.wall_table1 import wall_table1


def thin(seed):
    torch.manual_seed(seed)
    module = MaskedVGG(10, width=1 / 32, size=112, seen_rows=1).eval()
    return LoadedModel(module, "thin", Preprocess(size=(112, 112), resize=112), None)


def sets(split="test", size=112):
    # Rows 0 to 105 are what row 0 of the map sees (spec 9.1).
    dead = Region.rows(106 * size // 112, size - 1)
    return {"STACK-MIX": StackMix(Digits(split, count=40, size=size), dead=dead, size=size)}


@pytest.mark.slow
def test_finished_parts_of_another_model_or_other_images_are_not_taken(tmp_path, monkeypatch):
    tuned = {"options": {"learning_rate": 0.1, "iterations": 2}, "tried": []}
    monkeypatch.setattr(
        "camlucida.studies.published.wall_table1.tune_opticam", lambda *_, **__: tuned
    )

    def made(model, data, out=tmp_path):
        return wall_table1(model, data, count=2, out=out).record["mu"]["STACK-MIX"]

    first = made(thin(0), sets())
    again = made(thin(0), sets())
    assert again == first
    other = made(thin(1), sets())
    assert other == made(thin(1), sets(), None)
    assert other["eigencam"] != first["eigencam"]
    assert made(thin(0), sets("train"))["eigencam"] != first["eigencam"]


def test_a_seam_beside_the_wall_is_refused():
    data = StackMix(Digits("test", count=20, size=112), dead=Region.rows(100, 111), size=112)
    with pytest.raises(CamlucidaError, match=r"rows 100-111, but of thin .* rows 106 to 111"):
        wall_table1(thin(0), {"STACK-MIX": data}, count=1)


def test_what_does_not_fit_is_said():
    with pytest.raises(CamlucidaError, match="size=112"):
        wall_table1(thin(0), sets(size=128))
    with pytest.raises(CamlucidaError, match="give both or none"):
        wall_table1(None, sets())
    with pytest.raises(CamlucidaError, match="at least 1"):
        wall_table1(thin(0), sets(), count=0)


def finished(folder, *, seam=106, count=3):
    """Pictures as the authors hand them around: 112 pixels, flat, stacked at a row."""
    folder.mkdir()
    for number in range(count):
        rows = np.random.default_rng(number).integers(0, 60, (112, 112, 3)).astype(np.uint8)
        rows[seam:] += 150
        Image.fromarray(rows).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def untuned(monkeypatch):
    tuned = {"options": {"learning_rate": 0.2, "iterations": 2}, "tried": []}
    monkeypatch.setattr(
        "camlucida.studies.published.wall_table1.tune_opticam", lambda *_, **__: tuned
    )


@pytest.mark.usefixtures("untuned")
@pytest.mark.parametrize(("seam", "said"), [(106, "row 106, where"), (96, "row 96, but the dead")])
def test_finished_pictures_and_the_options_are_said(tmp_path, seam, said):
    model = kept(tmp_path)
    found = made_stacks(model, str(finished(tmp_path / "mix", seam=seam)), leave_out=["1.png"])
    assert [s.key for s in found["STACK-MIX"]] == ["0.png", "2.png"]
    table = wall_table1(model, found, count=2)
    assert any(f"2 finished pictures, taken as they are. From row to row they change most at {said}" in t
               for t in table.lead)  # fmt: skip
    legend = table.tables[0].legend
    for option in (
        "gradcam++:eps=1e-06", "scorecam:align_corners=True", "eigencam:sign=none", "learning_rate=0.2",
    ):  # fmt: skip
        assert option in legend
    assert table.record["mu"]["STACK-MIX"]["hirescam"] == [0, 0]


def test_what_cannot_be_left_out_or_taken_as_it_is(tmp_path):
    model = kept(tmp_path)
    mix = finished(tmp_path / "mix")
    with pytest.raises(CamlucidaError, match=r"not among the images: 7\.png"):
        made_stacks(model, str(mix), leave_out=["7.png", "1.png"])
    Image.new("RGB", (224, 224)).save(mix / "larger.png")
    with pytest.raises(CamlucidaError, match=r"1 of the 4 pictures .* 112 x 112"):
        made_stacks(model, str(mix))
    drawn = made_stacks(model, photos(tmp_path / "pairs", 3, 9))["STACK-MIX"]
    again = made_stacks(model, str(tmp_path / "pairs"), leave_out=[drawn[0].key])["STACK-MIX"]
    assert again[0].key != drawn[0].key
    assert again[1].key == drawn[1].key


# ---- the command --------------------------------------------------------------------------------


def kept(folder, classes=10, **options):
    """A thin masked VGG for 112 pixels, from a file."""
    torch.manual_seed(0)
    module = MaskedVGG(classes, width=1 / 32, size=112, seen_rows=1, **options)
    torch.save(module.state_dict(), folder / "best.pt")
    return load_masked_vgg(folder / "best.pt")


def stacks(model, mix=None, gen=None):
    return made_stacks(model, mix, gen)


def photos(folder, *labels):
    for label in labels:
        (folder / str(label)).mkdir(parents=True)
        for number in range(2):
            Image.effect_noise((140, 130), 50).save(folder / str(label) / f"{number}.png")
    return str(folder)


def test_images_are_stacked_for_the_model(tmp_path):
    (path, *_) = sorted(Path(photos(tmp_path / "gen", "any")).rglob("*.png"))
    found = stacks(kept(tmp_path), "digits,count=60,size=112", tmp_path / "gen")
    mix, gen = found["STACK-MIX"], found["STACK-GEN"]
    assert str(mix.dead) == "rows 106-111"
    assert mix[0].picture().size == gen[0].picture().size == (112, 112)
    assert len(mix) == 10
    # The published 224 of 256 pixels.
    cut = Preprocess(size=(112, 112), resize=128).pixels(Image.open(path).convert("RGB"))
    shown = torch.from_numpy(np.array(gen[0].picture())).permute(2, 0, 1) / 255
    torch.testing.assert_close(shown, cut, rtol=0, atol=1 / 255)


def test_of_imagenets_classes_animals_are_stacked(tmp_path):
    model = kept(tmp_path, 1000)
    found = stacks(model, photos(tmp_path / "a", 397, 398, 5))["STACK-MIX"]
    assert [sample.label for sample in found] == [5, 397]
    with pytest.raises(CamlucidaError, match="animals, labels 0 to 397"):
        stacks(model, photos(tmp_path / "b", 398, 999))
    few = stacks(kept(tmp_path), photos(tmp_path / "c", 3, 9))["STACK-MIX"]
    assert [sample.label for sample in few] == [3, 9]


def test_a_model_without_dead_rows_is_refused(tmp_path):
    with pytest.raises(CamlucidaError, match="which unmasked-vgg has not"):
        stacks(kept(tmp_path, masked=False), "digits,count=60,size=112")


def test_a_model_needs_images(capsys, tmp_path):
    kept(tmp_path)
    assert main(["reproduce", "wall-table1", "--model", f"masked-vgg:{tmp_path / 'best.pt'}"]) == 2
    assert "--stack-mix DATA, --stack-gen FOLDER" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("untuned")
def test_the_authors_artefacts_from_the_command_line(capsys, tmp_path):
    """Their checkpoint and both of their folders, as they lie on the disk."""
    model = kept(tmp_path).module.state_dict()
    names = {"classifier": "31", "features": ""}
    theirs = {
        f"{names[part]}.{rest}".lstrip("."): value
        for name, value in model.items()
        for part, _, rest in [name.partition(".")]
    }
    torch.save(theirs, tmp_path / "params_vgg16_masked.pt")
    taken = made_stacks(kept(tmp_path), None, finished(tmp_path / "finished"))["STACK-GEN"]
    assert taken.resize is None
    gen = tmp_path / "stackgen"
    gen.mkdir()
    for number in range(2):
        Image.effect_noise((150, 140), 50).save(gen / f"{number}.jpg")
    code = main([
        "reproduce", "wall-table1", "--model", f"masked-vgg:{tmp_path / 'params_vgg16_masked.pt'}",
        "--stack-mix", str(finished(tmp_path / "stackmix")), "--stack-gen", str(gen),
        "--leave-out", "2.png", "--out", str(tmp_path / "out"), "--json",
    ])  # fmt: skip
    out, err = capsys.readouterr()
    assert (code, "Traceback" in err) == (0, False)
    found = json.loads(out)
    assert {k: len(v["gradcam"]) for k, v in found["record"]["mu"].items()} == {
        "STACK-MIX": 2,
        "STACK-GEN": 2,
    }
    assert any(
        "shorter side resized to 128 and 112 pixels cut out" in text for text in found["lead"]
    )
    assert found["record"]["weights_sha256"]
