"""``camlucida evaluate`` and ``camlucida verify --pairs``, killed at many moments: the rows are those of a whole run.

``CAMLUCIDA_TEST_KILLS`` says how many moments (6 by default); they are spread from the start of the work to its end.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from reference.bench import Pictures, images_of, rows_of
from reference.embedders import picture

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CAMLUCIDA_TEST_KILLS", "6"))
IMAGES = 24
PAIRS = 12

# The real command line, with a tiny model in place of the one that is named, and its start told.
_COMMAND = """
import sys
from reference.bench import tiny
from reference.embedders import small
from camlucida.explanation import subject
from camlucida.faces import load
subject.load_model = lambda *_, **__: tiny()
load.load_embedder = lambda *_, **__: small()
from camlucida.cli import main
print("on", flush=True)
sys.exit(main(sys.argv[1:]))
"""


def start(*arguments):
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _COMMAND, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "on\n"
    return process


def whole(arguments):
    """Run to the end; how long the work took."""
    began = time.monotonic()
    process = start(*arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return time.monotonic() - began


def killed(arguments, moments):
    """Start again and again, killed after so many seconds each time, then run to the end.

    Returns:
        How many of them were killed before they were ready.
    """
    count = 0
    for moment in moments:
        process = start(*arguments)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            count += 1
        process.communicate()
    whole(arguments)
    return count


def test_evaluate_killed_at_any_moment(tmp_path):
    Pictures(tmp_path / "pictures", IMAGES, broken=(5,))
    arguments = [
        "evaluate", tmp_path / "pictures", "--metric", "concentration", "--method", "gradcam", "--method",
        "fame:iterations=200", "--shard-size", "2", "--batch-size", "2", "--no-report", "--out",
    ]  # fmt: skip
    seconds = whole([*arguments, tmp_path / "whole"])
    moments = [seconds * (i + 0.5) / KILLS for i in range(KILLS)]
    for i, moment in enumerate(moments):  # each a run of its own
        run = tmp_path / f"run{i}"
        killed([*arguments, run], [moment])
        _same_rows(run, tmp_path / "whole")
    # And one run that is killed at all of them, one after the other.
    assert killed([*arguments, tmp_path / "often"], moments[: max(1, KILLS // 2)]) > 0
    _same_rows(tmp_path / "often", tmp_path / "whole")


def _same_rows(run, other):
    assert not list(run.rglob(".writing*"))
    for one, two in ((rows_of(run), rows_of(other)), (images_of(run), images_of(other))):
        assert one.equals(two)


def test_verify_pairs_killed_at_any_moment(tmp_path):
    for i in range(2 * PAIRS):
        picture(i).save(tmp_path / f"{i}.png")
    lines = [f"{i}.png,{i if i % 2 else i + PAIRS}.png,{i % 2}" for i in range(PAIRS)]
    (tmp_path / "pairs.csv").write_text("\n".join(["probe,gallery,same", *lines]))
    arguments = [
        "verify", "--pairs", tmp_path / "pairs.csv", "--aligned", "--method", "fame:iterations=50,sigma=1.0,kernel=5",
        "--draw", "3", "--out",
    ]  # fmt: skip
    seconds = whole([*arguments, tmp_path / "whole"])
    for i in range(KILLS):
        run = tmp_path / f"run{i}"
        killed([*arguments, run], [seconds * (i + 0.5) / KILLS])
        _same_shards(run, tmp_path / "whole")


def _same_shards(run, other):
    assert not list(run.rglob(".writing*"))
    names = sorted(path.relative_to(other) for path in other.rglob("*.npz"))
    assert names == sorted(path.relative_to(run) for path in run.rglob("*.npz"))
    for name in names:
        with np.load(run / name) as one, np.load(other / name) as two:
            for key in set(two.files) - {"seconds"}:
                np.testing.assert_array_equal(one[key], two[key], err_msg=f"{name} {key}")
