"""Measures speed and compares models: `dlink-bench`, the demonstration and measurements for DESIGN.md."""
