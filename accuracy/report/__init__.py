"""Writes the report of a check: one HTML file that contains its charts and pictures."""
