"""How fast, side by side: `dlink-bench`."""
