"""Filling removed pixels from their neighbours, as ROAD does."""
