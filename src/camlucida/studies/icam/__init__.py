"""I-CAM's own figures: ablation, layer importance, the four cases, nearest training images."""
