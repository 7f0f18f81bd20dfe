"""The report of a map: one HTML file that opens offline, and the same figures as JSON."""
