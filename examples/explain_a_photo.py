"""Where did the model look? Three lines, and what else the result holds.

Run with: python examples/explain_a_photo.py photo.jpg
"""

import sys

import camlucida

model = camlucida.load_model("embedded")  # or any torch.nn.Module of yours
explanation = camlucida.explain(model, sys.argv[1], method="gradcam")
explanation.save("explanation.png")

print(explanation.explained[0])
for prediction in explanation.predictions[0]:
    print(f"{prediction.probability:6.1%}  {prediction.name}")
for message in explanation.diagnostics[0].messages:
    print("note:", message)
