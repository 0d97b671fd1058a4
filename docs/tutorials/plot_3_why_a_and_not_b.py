"""
Why A and not B?
================

Grad-CAM says where the evidence for a class lies. It does not say what tells the class from the next one.
"""

import camlucida

model = camlucida.load_model("embedded")
photo = camlucida.data.picture("chelsea")
alone = camlucida.explain(model, photo)
first, second = alone.predictions[0][:2]
print(f"{first.name}: {first.probability:.0%}, {second.name}: {second.probability:.0%}")

# %%
# The explained number is a *target*. A margin is the logit of a class less those of its rivals, and ``both_sides``
# draws what speaks for the one and for the other on one scale: orange for the first, violet for the second.

margin = camlucida.LogitMargin(first.index, rivals=[second.index])
both = camlucida.explain(model, photo, target=margin, both_sides=True)
both

# %%

print(both.explained[0])

# %%
# Contrast is a property of the target, not of the method: every method gets its contrastive form for nothing.
# ``diffgradcam`` is Grad-CAM on a margin over all other classes.

camlucida.explain(model, photo, method=["gradcam", "diffgradcam:aggregator=max", "finercam"])

# %%
# On the command line: ``camlucida explain photo.jpg --class tabby --against "tiger cat"``.
