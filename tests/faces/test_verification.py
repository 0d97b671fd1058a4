"""The verification benchmark: its numbers by hand, stopping and going on, and its table."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from html import escape

import numpy as np
import pytest
import torch
from PIL import Image

from camlucida import CamlucidaError, ImageError
from camlucida.common.files import locked
from camlucida.faces import verification as module
from camlucida.faces.align import Crop
from camlucida.faces.bench_pairs import BenchPair, listed_pairs
from camlucida.faces.page import DrawnPair, verification_page
from camlucida.faces.pair import CARE
from camlucida.faces.pairs_file import read_pairs
from camlucida.faces.protocol import PERCENTAGES, random_map
from camlucida.faces.similarity_maps import similarity_maps
from camlucida.faces.verification import VerificationBenchmark, run_verification
from camlucida.studies.published.fame_table1 import FAME_TABLE1, FameTable1, evenly
from reference import faces as slow
from reference.embedders import SIDE, picture, small

METHODS = [("fame", {"iterations": 2, "sigma": 1.0, "kernel": 5}), "gradcam"]


def pair(i, same):
    a = picture(i)
    noise = np.asarray(picture(100 + i), dtype=float)
    near = (0.8 * np.asarray(a, dtype=float) + 0.2 * noise).astype(np.uint8)
    gallery = Image.fromarray(near) if same else picture(50 + i)
    return BenchPair(f"pair {i}", same, f"person {i // 2}", lambda: (Crop(a), Crop(gallery)))


def bench(**options):
    pairs = [pair(i, i % 2 == 0) for i in range(6)]
    return VerificationBenchmark(small(), pairs, METHODS, shard=2, **options)


def test_numbers_by_hand():
    found = run_verification(bench(rules=("percentile",)))
    embedder = small()
    genuine = [s for s, g in zip(found.scores, found.same, strict=True) if g]
    impostor = [s for s, g in zip(found.scores, found.same, strict=True) if not g]
    theta = slow.eer_threshold(genuine, impostor)
    assert found.threshold.value == pytest.approx(theta)
    for label, method in zip(bench().labels, METHODS, strict=True):
        for mode in ("delete", "insert"):
            table = []
            for i in range(6):
                x = embedder.inputs(list(pair(i, i % 2 == 0).load()))
                embeddings = embedder.embed(x)
                maps = similarity_maps(
                    embedder, x[:1], embeddings[1:], method, dissimilar=False, threshold=theta
                )
                pixels = embedder.preprocess.denormalise(x[0])
                row = []
                for p in PERCENTAGES:
                    changed = slow.altered(pixels, maps.similar[0].double(), p, mode == "insert")
                    probe = embedder.embed(embedder.preprocess.normalise(changed[None]))
                    row.append(float(torch.cosine_similarity(probe[0], embeddings[1], dim=0)))
                table.append(row)
            np.testing.assert_allclose(found.altered[label]["percentile", mode], table, atol=1e-9)
            curve = found.curves[label]["percentile", mode]
            heights = [slow.accuracy([r[k] for r in table], found.same, theta) for k in range(11)]
            np.testing.assert_allclose(curve.accuracy, heights)
            assert curve.auc == pytest.approx(slow.auc(heights, PERCENTAGES))
    assert found.people == ("person 0", "person 0", "person 1", "person 1", "person 2", "person 2")


def test_random_maps_are_held_beside():
    found = run_verification(bench())
    assert {"random pixels", "random patches"} <= set(found.curves)
    assert found.curves["random pixels"]["rank", "delete"].auc < 100
    # Nothing is deleted at 0 %, whatever the map.
    for by_key in found.altered.values():
        np.testing.assert_allclose(by_key["rank", "delete"][:, 0], found.scores, atol=1e-9)
    assert random_map((3, 3), 0, 2).shape == (3, 3)


def test_both_sides_are_altered_when_asked():
    one, two = run_verification(bench()), run_verification(bench(both=True))
    for label in one.altered:
        a, b = (r.altered[label]["rank", "delete"] for r in (one, two))
        np.testing.assert_allclose(a[:, 0], b[:, 0], atol=1e-9)
        assert not np.allclose(a[:, 3], b[:, 3])


def test_a_stopped_run_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = run_verification(bench())
    made = []
    plain = module._Work.alter

    def stops(self, positions, *args):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(positions)
        return plain(self, positions, *args)

    monkeypatch.setattr(module._Work, "alter", stops)
    with pytest.raises(KeyboardInterrupt):
        run_verification(bench(), tmp_path)
    assert len(list(tmp_path.glob("altered/*.npz"))) == 2
    (tmp_path / "altered" / ".writing-1-abc.npz").write_bytes(b"half")
    made.clear()
    again = run_verification(bench(), tmp_path)
    assert len(made) == 1
    assert not list(tmp_path.glob("altered/.writing*"))
    for label, by_key in whole.altered.items():
        for key, table in by_key.items():
            np.testing.assert_array_equal(table, again.altered[label][key])
    made.clear()
    run_verification(bench(), tmp_path)
    assert not made
    with pytest.raises(CamlucidaError, match=r"another plan.*seed"):
        run_verification(bench(seed=1), tmp_path)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "junk": lambda path: path.write_bytes(b"PK" + b"x" * 300),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "gone": lambda path: path.unlink(),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "another shard": lambda path: shutil.copy(path.with_name("shard-000000.npz"), path),
}


def _equal(one, two):
    np.testing.assert_array_equal(one.scores, two.scores)
    assert one.threshold == two.threshold
    for label, by_key in one.altered.items():
        for key, table in by_key.items():
            np.testing.assert_array_equal(table, two.altered[label][key])


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return folder, run_verification(bench(), folder)


@pytest.mark.parametrize("kind", ["scores", "altered"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_named_and_computed_again(tmp_path, sound, damage, kind, recwarn):
    folder, whole = sound
    shutil.copytree(folder, tmp_path / "run")
    path = tmp_path / "run" / kind / "shard-000001.npz"
    DAMAGE[damage](path)
    (tmp_path / "run" / ".writing-1-plan.json").write_text("half")
    _equal(whole, run_verification(bench(), tmp_path / "run"))
    said = [str(w.message) for w in recwarn if "computed again" in str(w.message)]
    assert len(said) == (damage != "gone")
    assert all("shard-000001.npz" in text for text in said)
    assert np.load(path)["marks"]
    assert not list((tmp_path / "run").rglob(".writing*"))


def _on_files(folder):
    pairs = []
    for i in range(6):
        files = tuple(folder / f"{i}-{side}.png" for side in "ab")
        for file, crop in zip(files, pair(i, i % 2 == 0).load(), strict=True):
            if not file.exists():
                crop.image.save(file)
        load = partial(
            lambda files: tuple(Crop(Image.open(f).convert("RGB")) for f in files), files
        )
        pairs.append(BenchPair(f"pair {i}", i % 2 == 0, f"person {i // 2}", load, files))
    return VerificationBenchmark(small(), pairs, METHODS, shard=2)


def test_a_photo_that_changed_is_named_and_what_depends_on_it_computed_again(tmp_path):
    (tmp_path / "photos").mkdir()
    run_verification(_on_files(tmp_path / "photos"), tmp_path / "run")
    picture(77).save(tmp_path / "photos" / "3-a.png")
    with pytest.warns(UserWarning, match=r"3-a\.png.* has changed") as said:
        again = run_verification(_on_files(tmp_path / "photos"), tmp_path / "run")
    assert "scores/shard-000001" in str(said[0].message)
    _equal(run_verification(_on_files(tmp_path / "photos")), again)


def test_two_processes_do_not_write_at_once(tmp_path):
    with locked(tmp_path), pytest.raises(CamlucidaError, match="another process is writing"):
        run_verification(bench(), tmp_path)


def test_photos_that_fail_are_named_and_left_out():
    def broken():
        raise ImageError("no face was found")

    pairs = [pair(i, i % 2 == 0) for i in range(5)]
    pairs.insert(2, BenchPair("broken", True, "x", broken))
    found = run_verification(VerificationBenchmark(small(), pairs, METHODS, shard=3))
    assert found.errors == ("broken: no face was found",)
    assert len(found.keys) == 5
    assert np.isfinite(found.altered["gradcam"]["rank", "insert"]).all()


def test_thresholds():
    assert run_verification(bench(threshold=0.123)).threshold.value == 0.123
    exact = run_verification(bench())
    assert run_verification(bench(round_theta=True)).threshold.value == round(
        exact.threshold.value, 4
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [({"shard": 0}, "shard"), ({"methods": []}, "no method"),
     ({"methods": ["gradcam", "gradcam"]}, "twice"), ({"methods": ["gradcm"]}, "unknown method"),
     ({"pairs": [pair(0, True)]}, "genuine and impostor")],
)  # fmt: skip
def test_bad_benchmarks_are_refused(change, match):
    given = {"embedder": small(), "pairs": [pair(0, True), pair(1, False)], "methods": METHODS}
    with pytest.raises(CamlucidaError, match=match):
        VerificationBenchmark(**{**given, **change})


def test_report_and_table():
    report = run_verification(bench())
    found = FameTable1(report, "ar-glass", {})
    table = found.table()
    rows = dict(table.rows)
    assert rows["gradcam"][0].published == 72.6
    assert rows["random patches"][0].published is None
    assert rows["gradcam"][1].value == report.curves["gradcam"]["percentile", "insert"].auc
    record = json.loads(json.dumps(found.to_dict()))
    assert record["published"]["fame"] == [56.1, 92.1]
    assert record["pairs"] == 6
    assert set(record["better_than_random_patches"]) == set(report.seconds)
    assert len(FameTable1.published_table().rows) == len(FAME_TABLE1) == 5
    assert FameTable1(report, "standin").table("rank").rows[0][1][0].published is None
    page = verification_page("Title", ["Lead."], report=report).html()
    assert page.count("<svg") == 2 * len(report.plan["rules"]) + 2


def test_differences_are_paired():
    report = run_verification(bench())
    other = list(report.curves)
    apart, low, high = report.difference(other[0], other[1], "rank", "insert")
    areas = [report.curves[label]["rank", "insert"].auc for label in other[:2]]
    assert apart == pytest.approx(areas[0] - areas[1])
    assert low <= apart <= high
    assert report.difference(other[0], other[0], "rank", "insert") == (0, 0, 0)
    back = report.difference(other[1], other[0], "rank", "insert")
    assert back == pytest.approx((-apart, -high, -low))
    table = FameTable1(report, "standin").versus_fame()
    assert [name for name, _ in table.rows] == [n for n in other if not n.startswith("fame")]


def test_the_page_says_what_was_left_out_and_names_pairs_without_pictures(tmp_path):
    report = replace(run_verification(bench()), errors=("a - b: no <face>",))
    Image.new("RGB", (3000, 30)).save(tmp_path / "grid.png")
    drawn = [
        DrawnPair("one", "match", same=True, picture=tmp_path / "grid.png"),
        DrawnPair("two", "left out: broken"),
        DrawnPair("three", "match", picture=tmp_path / "gone.png"),
    ]
    page = verification_page("Title", ["Lead."], report=report, drawn=drawn).html()
    assert page.count("<img") == 1
    assert "match (one person)" in page
    assert "left out: broken" in page
    assert "2 more pairs" in page
    assert "no &lt;face&gt;" in page
    assert escape(CARE) in page


def test_evenly():
    pairs = [pair(i, i < 4) for i in range(20)]
    chosen = evenly(pairs, 8)
    assert sum(p.same for p in chosen) == 4
    assert len(chosen) == 8
    assert len({p.key for p in chosen}) == 8
    with pytest.raises(CamlucidaError, match="at least 2"):
        evenly(pairs, 1)


def test_lists_of_files(tmp_path):
    for i in range(4):
        picture(i).save(tmp_path / f"{i}.png")
    table = tmp_path / "pairs.csv"
    table.write_text("probe,gallery,same\n0.png,1.png,1\n2.png,3.png,0\n1.png,2.png,\n")
    pairs = listed_pairs(small(), read_pairs(table), aligned=True)
    assert [p.same for p in pairs] == [True, False]
    probe, gallery = pairs[0].load()
    assert probe.size == gallery.size == (SIDE, SIDE)
    table.write_text("probe,gallery\n0.png,1.png\n")
    with pytest.raises(CamlucidaError, match="add the column same"):
        listed_pairs(small(), read_pairs(table))
