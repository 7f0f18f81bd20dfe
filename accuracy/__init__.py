"""Compares two models' roads, and scores roads against labels. Needs OpenCV; graphs need SciPy and shapely too."""
