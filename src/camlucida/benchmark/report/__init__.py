"""The pages of a benchmark run."""
