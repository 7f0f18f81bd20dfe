"""Reads pictures, GeoTIFFs and folders of tiles, and writes masks. Needs OpenCV; raster.py also needs rasterio."""
