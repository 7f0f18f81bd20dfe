"""A map of any number of rasters: planned, made block by block on one machine or a cluster, finished, and resumable."""
