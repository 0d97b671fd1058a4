"""What every room may use: errors, files, optional packages, seeds, statistics, provenance."""
