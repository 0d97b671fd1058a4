"""FAME's own figures: cells of a feature map, iterations."""
