"""
Can this map be a lie?
======================

Three ways to find out, each with a verdict: a wall, an attack, and a network that has learned nothing.
"""

import camlucida
from camlucida.audits import audit_dead_zone, audit_logit_shift, audit_sanity

model = camlucida.load_model("embedded")
photos = [camlucida.data.picture(name) for name in camlucida.data.picture_names()]


def say(report: camlucida.audits.AuditReport) -> None:
    """The verdicts in words."""
    for verdict in report.verdicts:
        print(f"{verdict.subject}: {verdict.outcome}. {verdict.text}\n")


# %%
# **A wall.** The lower quarter of every photo is hidden from the model, and that nothing of it reaches the output is
# proved bit for bit. A map that lights up there shows something that the model cannot have used.

report = audit_dead_zone(model, photos, wall="rows:168-223", methods=["gradcam++", "saliency"])
say(report)

# %%
# **An attack.** One vector is added to all rows of the last layer. No probability changes, so every prediction is the
# same as before. Does the map stay?

say(audit_logit_shift(model, photos, methods=["gradcam", "diffgradcam"]))

# %%
# **A network that has learned nothing.** If the map stays the same when weights are redrawn, it shows the photo and not
# the model.

say(audit_sanity(model, photos, methods=["gradcam"], labels=False))

# %%
# ``camlucida audit all --model M --data D`` asks all audits and grades each method for four questions: safe, with caution,
# not safe, or not enough to tell. What the grades rest on, and how they came out against planted truth, is in
# :doc:`/audits`.
