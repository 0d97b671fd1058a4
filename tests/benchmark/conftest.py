"""Run folders as the benchmark writes them, with numbers of our own."""

import json

import numpy as np
import pytest

from camlucida.benchmark.plan import FORMAT
from camlucida.benchmark.shards import ImageRow, RunFolder, Shard, ShardColumn

# name -> title, direction, unit, metric, mean, curve positions
NUMBERS = {
    "iou@0.3": ("IoU at 0.3", "higher", "", "iou", 0.42, None),
    "iou@0.5": ("IoU at 0.5", "higher", "", "iou", 0.31, None),
    "iou_area": ("IoU over all thresholds", "higher", "", "iou", 0.33, np.linspace(0, 1, 21)),
    "pointing": ("Pointing game", "higher", "", "pointing", 0.7, None),
    "insertion": ("Insertion", "higher", "", "insertion", 0.55, np.linspace(0, 1, 29)),
    "deletion": ("Deletion", "lower", "", "deletion", 0.16, np.linspace(0, 1, 29)),
    "road": ("ROAD, combined", "higher", "", "road", 0.21, np.linspace(0.1, 0.9, 9)),
    "drop": ("Average drop", "lower", "%", "average-drop", 31.0, None),
    "sensitivity": ("Sensitivity-max", "lower", "", "sensitivity", 0.8, None),
    "entropy": ("CAM entropy", "none", "nats", "entropy", 3.3, None),
    "seconds": ("Explaining an image", "lower", "s", "seconds", 0.05, None),
}
METHODS = ("gradcam", "gradcam++", "scorecam", "rise", "fame", "i-cam")
CLASSES = ["tabby, tabby cat", "tench", "castle & <b>keep</b>"]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """A function that writes a run folder and says where it lies."""

    def make(
        methods=METHODS,
        numbers=None,
        images=60,
        *,
        seed=0,
        gap=0.06,
        labels=True,
        broken=2,
        shard_size=32,
        planned=None,
        model="model",
        edit=None,
        sources=(),
    ):
        path = tmp_path_factory.mktemp("run")
        folder, chosen = RunFolder(path), dict(numbers if numbers is not None else NUMBERS)
        rng = np.random.default_rng(seed)
        (path / "images").mkdir()
        (path / "rows").mkdir()
        plan = {
            "format": FORMAT,
            "camlucida": "0.1",
            "data": {"name": "photos", "samples": images, "images": planned or images, "limit": None,
                     "fingerprint": "f" * 64},
            "model": {"name": model, "architecture": None, "weights_sha256": "a" * 64},
            "methods": [{"label": m, "name": m, "options": {"n": 4} if m == "rise" else {}} for m in methods],
            "metrics": [{"name": n[3], "options": {}, "numbers": [k]} for k, n in chosen.items()],
            "target": {"target": "Logit", "classes": None},
            "explain": "predicted",
            "layers": [],
            "steps": None,
            "seed": 0,
            "shard_size": shard_size,
            "digest": "d" * 64,
            "how": {"data": "nowhere/photos", "model": model, "engine": "local", "batch_size": 8},
            "about": {
                "numbers": {
                    k: {"title": n[0], "direction": n[1], "unit": n[2], "metric": n[3], "range": [0, 1]}
                    for k, n in chosen.items()
                },
                "curves": {k: n[5].tolist() for k, n in chosen.items() if n[5] is not None},
                "layers": {},
                "class_names": CLASSES,
            },
        }  # fmt: skip
        (path / "plan.json").write_text(json.dumps(plan))
        for number, start in enumerate(range(0, images, shard_size)):
            size = min(shard_size, images - start)
            rows = []
            for i in range(start, start + size):
                source = str(sources[i]) if i < len(sources) else None
                if i < broken:
                    rows.append(
                        ImageRow(i, f"c/{i:05}.jpg", source, error="cannot be read: <cut off>")
                    )
                    continue
                said, p = int(rng.integers(3)), float(rng.uniform(0.2, 1))
                truth = said if rng.random() < p else (said + 1) % 3
                rows.append(
                    ImageRow(i, f"c/{i:05}.jpg", source, truth if labels else None, CLASSES[truth] if labels else "",
                             said, said, p, p)
                )  # fmt: skip
            good = np.array([j for j, row in enumerate(rows) if row.error is None], dtype=np.int64)
            level = rng.normal(0, 0.25, len(good))
            columns = []
            for k, (_, direction, _, _, mean, at) in chosen.items():
                for m, method in enumerate(methods):
                    sign = -1 if direction == "higher" else 1
                    skill = 1 + sign * gap * m if k != "seconds" else 2.0**m
                    value = mean * skill * np.exp(level + rng.normal(0, 0.12, len(good)))
                    curve = None
                    if at is not None:
                        shape = at if k != "deletion" else 1 - at
                        curve = (
                            (value[:, None] * 1.6 * shape ** (0.5 + 0.2 * m))
                            .clip(0, 1)
                            .astype(np.float32)
                        )
                    columns.append(ShardColumn(good, method, k, value, curve))
            if edit is not None:
                edit(columns)
            facts = {"explaining": 10.0, "measuring": 20.0}
            folder.write(Shard(number, rows, columns, facts))
        return path

    return make
