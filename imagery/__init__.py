"""Pictures, GeoTIFFs and folders of tiles: files become pixels here, and masks become files."""
