"""The report of a check: one HTML file with charts and pictures inside."""
