"""
The first map in three lines
============================

Where did the model look? A model, a photo, a method.
"""

import camlucida

model = camlucida.load_model("embedded")
photo = camlucida.data.picture("cheetah")
explanation = camlucida.explain(model, photo, method="gradcam")
explanation

# %%
# ``model`` may be any :class:`torch.nn.Module`, ``photo`` a path, a PIL image, an array, a folder, or a tensor as the
# model takes it. Bright is what speaks for the explained class, which is the predicted one unless you say otherwise.
# The dark frame is what the model's preprocessing cropped away: it was never seen.
#
# What the model thinks stands beside the map:

for prediction in explanation.predictions[0]:
    print(f"{prediction.probability:6.1%}  {prediction.name}")

# %%
# Nothing is assumed in silence. What had to be assumed about a model, and what a reader of the map has to know, are
# messages. Here somebody asks where the *keeshond*, a dog, is in a photo of a cat:

nothing = camlucida.explain(model, camlucida.data.picture("chelsea"), target="keeshond")
for message in nothing.diagnostics[0].messages:
    print("note:", message)

# %%
# The layer was chosen, too; ``camlucida layers MODEL`` says why, and which blocks to try beside it.

print(explanation.layers)

# %%
# Take it along: maps as arrays, a picture, a record of everything that is needed to get it again.

print(explanation.numpy().shape)
print(explanation.record()["provenance"]["method"])
