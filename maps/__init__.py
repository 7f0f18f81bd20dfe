"""Roads as lines, of masks of any size. Needs rasterio, pyogrio, shapely and SciPy."""
