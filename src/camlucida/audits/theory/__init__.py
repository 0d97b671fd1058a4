"""The theorems about CAMs and dead zones, put to the test."""
