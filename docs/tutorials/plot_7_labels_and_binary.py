"""
Several labels, or one logit
============================

Not every model chooses one of many classes. What its outputs are decides what can be asked.
"""

import torch
from torch import nn

import camlucida

torch.manual_seed(0)
trunk = nn.Sequential(
    nn.Conv2d(3, 16, 5, stride=4), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()
)
pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
image = torch.rand(1, 3, 96, 96)

# %%
# **Labels**, several of which may be present: the network ends in a sigmoid, which is found. Each label from the
# threshold on is a prediction.

tagger = nn.Sequential(trunk, pool, nn.Linear(32, 4), nn.Sigmoid())
names = ["cat", "cup", "sofa", "window"]
found = camlucida.explain(tagger, image, class_names=names, outputs="labels:threshold=0.4")
print(found)
for prediction in found.predictions[0]:
    print(f"{prediction.probability:6.1%}  {prediction.name}")

# %%
# Any label can be asked for, present or not. Labels do not exclude each other, so a margin over rivals is refused, in
# words:

print(
    camlucida.explain(tagger, image, target="sofa", class_names=names, outputs="labels").explained[
        0
    ]
)
try:
    camlucida.explain(
        tagger, image, target=camlucida.LogitMargin("sofa"), class_names=names, outputs="labels"
    )
except camlucida.CamlucidaError as error:
    print("refused:", error)

# %%
# **Binary**: one logit that decides between two classes. Class 1 is explained by the logit, class 0 by minus it.

judge = nn.Sequential(trunk, pool, nn.Linear(32, 1))
for wanted in (0, 1):
    found = camlucida.explain(judge, image, target=wanted, outputs="binary")
    print(found.explained[0], float(found.signed.sum()))

# %%
# **Regression**: a value, as it is. ``head=`` picks one of several outputs.

print(camlucida.explain(judge, image, outputs="regression").explained[0])
