"""A run folder that was damaged, and photos that changed between two calls: what is there is never believed blindly."""

import json
import os
import shutil

import pytest
from PIL import Image

from camlucida.benchmark import RunFolder, local, summarise
from camlucida.common.errors import CamlucidaError
from reference.bench import Pictures, bench, images_of, rows_of


def same(a, b):
    assert rows_of(a).equals(rows_of(b))
    assert images_of(a).drop(columns="source").equals(images_of(b).drop(columns="source"))


@pytest.fixture
def whole(tmp_path):
    local.run(bench(tmp_path), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    return tmp_path / "whole"


def _flipped(path):
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF  # in the values; elsewhere a byte may mean nothing
    path.write_bytes(content)


def _of_another_seed(run):
    def put(path):
        other = run.parent / "other"
        local.run(bench(run.parent, seed=1), other)
        shutil.copy(other / path.relative_to(run), path)

    return put


def _edited(change):
    """The file with other values, sound as a file and with everything that it says about itself."""

    def put(path):
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(path)
        names = {"images": "probability", "rows": "value"}
        name = names[path.parent.name]
        values = table[name].to_pylist()
        column = table.schema.get_field_index(name)
        table = table.set_column(column, table.schema.field(name), [change(values)])
        parquet.write_table(table, path)

    return put


DAMAGE = {
    "an edited value": _edited(lambda values: [*values[:-1], 0.25]),
    "a value gone": _edited(lambda values: [*values[:-1], None]),
    "values in another order": _edited(lambda values: values[::-1]),
    "empty": lambda path: path.write_bytes(b""),
    "junk": lambda path: path.write_bytes(b"PAR1" + b"x" * 300 + b"PAR1"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "gone": lambda path: path.unlink(),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "another shard": lambda path: shutil.copy(path.with_name("shard-000000.parquet"), path),
    "one byte": _flipped,
}


@pytest.mark.parametrize("kind", ["images", "rows"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_named_and_computed_again(whole, damage, kind):
    run = whole.with_name("run")
    path = run / kind / "shard-000001.parquet"
    DAMAGE[damage](path)
    if (damage, kind) != ("gone", "rows"):  # that is a shard that is not done yet
        with pytest.warns(UserWarning, match="shard 1 is computed again.*shard-000001"):
            ended = local.run(bench(whole.parent), run)
    else:
        ended = local.run(bench(whole.parent), run)
    assert (ended.before, ended.images) == (6, 10)
    same(whole, run)


def test_shards_of_another_plan_or_beyond_it_are_computed_again_or_taken_away(whole):
    run = whole.with_name("run")
    path = run / "rows/shard-000001.parquet"
    _of_another_seed(run)(path)
    for kind in ("images", "rows"):
        shutil.copy(run / kind / "shard-000000.parquet", run / kind / "shard-000007.parquet")
    (run / "rows/shard-x.parquet").write_bytes(b"")
    with pytest.warns(UserWarning, match="shard [17] ") as said:
        local.run(bench(whole.parent), run)
    assert len(said) == 2
    assert not (run / "images/shard-000007.parquet").exists()
    assert summarise(run).images == 10
    (run / "rows/shard-x.parquet").unlink()
    same(whole, run)


def test_a_shard_that_was_only_stored_otherwise_is_left_alone(whole, recwarn):
    run = whole.with_name("run")
    for kind in ("images", "rows"):
        _edited(lambda values: values)(run / kind / "shard-000001.parquet")
    assert local.run(bench(whole.parent), run).before == 10
    assert not recwarn


def test_a_sound_run_is_left_alone(whole, recwarn):
    run = whole.with_name("run")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    local.run(bench(whole.parent), run, verify_data=True)
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    assert not [w for w in recwarn if "again" in str(w.message)]


def test_a_photo_that_changed_is_named_and_its_shard_computed_again(whole):
    run, folder = whole.with_name("run"), whole.parent / "pictures"
    kept = (run / "rows/shard-000000.parquet").stat().st_mtime_ns
    Image.new("RGB", (24, 25), "red").save(folder / "005.png")
    with pytest.warns(UserWarning, match=r"shard 1 .*005\.png.* has changed"):
        local.run(bench(whole.parent), run)
    assert (run / "rows/shard-000000.parquet").stat().st_mtime_ns == kept
    local.run(bench(whole.parent), whole.parent / "fresh")
    same(run, whole.parent / "fresh")


def test_a_photo_that_was_broken_and_mended_is_used(whole):
    run = whole.with_name("run")
    Image.new("RGB", (24, 25), "red").save(whole.parent / "pictures/004.png")
    with pytest.warns(UserWarning, match=r"004\.png"):
        local.run(bench(whole.parent, data=Pictures(whole.parent / "pictures", 10)), run)
    assert images_of(run).error.isna().all()


def test_only_the_content_of_a_photo_counts_and_verify_data_reads_it(whole, recwarn):
    run, photo = whole.with_name("run"), whole.parent / "pictures/006.png"
    os.utime(photo, ns=(1, 1))  # as after copying
    local.run(bench(whole.parent), run)
    assert not [w for w in recwarn if "again" in str(w.message)]
    shutil.copy(whole / "rows/shard-000001.parquet", run / "rows/shard-000001.parquet")
    state = (whole.parent / "pictures/007.png").stat()
    content = bytearray((whole.parent / "pictures/007.png").read_bytes())
    content[-20] ^= 1  # of the same size, and of the same time
    (whole.parent / "pictures/007.png").write_bytes(content)
    os.utime(whole.parent / "pictures/007.png", ns=(state.st_mtime_ns, state.st_mtime_ns))
    local.run(bench(whole.parent), run)
    with pytest.warns(UserWarning, match=r"007\.png"):
        local.run(bench(whole.parent), run, verify_data=True)


# ---- the plan -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": None}, "data is not an object"),
        ({"data": {"name": "x"}}, "data.images is missing"),
        ({"methods": [{"name": 3}]}, r"methods\[0\].label is missing"),
        ({"metrics": {}}, "metrics is not a list"),
        ({"about": {}}, "about.numbers is missing"),
        ({"about": []}, "about is not an object"),
        ({"about": {"numbers": {"mass": 5}}}, "about.numbers.mass is not an object"),
        (
            {"about": {"numbers": {"mass": {"title": "m"}}}},
            "about.numbers.mass.direction is missing",
        ),
    ],
)
def test_a_plan_with_wrong_fields_is_said_and_mended(whole, change, said):
    run = whole.with_name("run")
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps({**plan, **change}))
    with pytest.raises(CamlucidaError, match=f"damaged: {said}"):
        summarise(run)
    local.run(bench(whole.parent), run)
    mended = json.loads((run / "plan.json").read_text())
    assert {**mended, "how": None} == {**plan, "how": None}
    same(whole, run)


@pytest.mark.parametrize("content", [b"", b"junk", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_plan_that_is_none_is_said_in_words(whole, content):
    run = whole.with_name("run")
    (run / "plan.json").write_bytes(content)
    for attempt in (lambda: summarise(run), lambda: local.run(bench(whole.parent), run)):
        with pytest.raises(CamlucidaError, match=r"plan.json"):
            attempt()
    assert len(RunFolder(run).done()) == 3


def test_a_plan_that_is_no_regular_file_is_said_in_words(whole):
    run = whole.with_name("run")
    (run / "plan.json").unlink()
    (run / "plan.json").symlink_to("/dev/zero")
    with pytest.raises(CamlucidaError, match="regular file"):
        summarise(run)
