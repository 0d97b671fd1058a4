"""
Faces: why do these two match?
==============================

Face verification compares two embeddings. What in the pixels makes them similar, and what sets them apart?
"""

import camlucida

embedder = camlucida.faces.load_embedder("dlib")
first, second, *_, other = camlucida.faces.demo_photos()
pair = camlucida.faces.explain_pair(embedder, first, second, method="gradcam")
print(pair.verdict)
pair

# %%
# For both sides two maps are drawn on one scale: e+ makes them similar, e- sets them apart. The same for two people:

strangers = camlucida.faces.explain_pair(embedder, first, other, method="gradcam")
print(strangers.verdict)
strangers

# %%
# A similarity map shows which pixels move this network's score for this pair. It does not show that two faces are those
# of one person: see :doc:`/faces`. FAME, ``fame:iterations=75``, is the method made for this; it takes a minute, so that
# it is left to you: ``camlucida verify a.jpg b.jpg --method fame``.
#
# These photos are of Eileen Collins and Grace Hopper, both in the public domain; each is there a second time, mirrored,
# turned and darker, since no second photo of either comes in a package.
