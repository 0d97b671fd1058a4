"""The four cases, confident or unsure and right or wrong, over a labelled folder, explained by I-CAM."""
