"""
Many photos, many machines
==========================

In the memory that one batch takes, stopped and gone on with, on one machine or on several.
"""

import tempfile
from pathlib import Path

import camlucida

model = camlucida.load_model("embedded")
photos = [camlucida.data.picture(name).path for name in camlucida.data.picture_names()]

# %%
# A sequence of which nothing is computed before it is read, and nothing is kept. Photos are opened as they are needed,
# the next ones while the last ones are explained.

stream = camlucida.explain_each(model, photos, method=["gradcam", "layercam"])
for one in stream:
    print(one["gradcam"].explained[0])

# %%
# To disk, a shard for each batch; the same call goes on where it was stopped. Then read photo by photo.

folder = Path(tempfile.mkdtemp())
stream.save(folder)
stored = camlucida.explanation.Stored(folder)
print(len(stored), sorted(file.name for file in folder.iterdir()))
print(stored.to_frame().head())

# %%
# ``camlucida explain photos/ --shards --out OUT`` is the same on the command line. A benchmark runs on several machines with
# ``camlucida evaluate DATA --engine ray --workers 8 --out /shared/RUN``; every photo has its own random stream, so that
# batch size, order and number of machines make no difference beyond rounding. What it would cost is worked out first:
# ``--estimate 16 --workers 8 --price 2.5``. See :doc:`/benchmarks`.
