"""Sanity: properties that every explanation should have."""
