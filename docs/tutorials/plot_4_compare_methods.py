"""
Compare methods on your data
============================

Which method finds the objects, on your model and your photos? Maps, numbers, intervals, and whether it could be chance.
"""

import tempfile

import camlucida

model = camlucida.load_model("embedded")
methods = ["gradcam", "hirescam", "layercam", "eigencam"]

# %%
# First a look. Methods that look at the same layer share their forward passes.

camlucida.explain(
    model, [camlucida.data.picture("lion"), camlucida.data.picture("coffee")], method=methods
)

# %%
# Then numbers. ``photos`` is a data set of labelled photos that install with packages, with boxes drawn by hand; a
# folder, COCO, VOC, a CSV file or your own kind of data stand here as well. The run is kept in a folder, and the same
# call goes on where it was stopped.

folder = tempfile.mkdtemp()
summary = camlucida.benchmark.evaluate(
    model, "photos", methods, ["iou:thresholds=0.3", "pointing_game", "energy_pointing"], out=folder
)
print(summary.table)

# %%
# What the numbers mean, and which way is better, is in the registry:

for row in camlucida.list_metrics()[:6]:
    print(f"{row.name:18} {row.direction:7} {row.summary}")

# %%
# ``camlucida evaluate photos/ --model timm:resnet50 --method gradcam --method layercam --out RUN`` and
# ``camlucida report RUN`` do the same and write a page. Localisation says whether a map lies on the object. Whether it
# shows what the *model* used is another question: see :doc:`/built/tutorials/plot_5_can_it_lie`.
