"""Addresses of rasters as the paths under which GDAL reads them."""

from dlink.imagery.kinds import VSI

WEB = ("http://", "https://")
BUCKETS = {"s3://": "/vsis3/", "gs://": "/vsigs/", "az://": "/vsiaz/"}


def remote_path(name: str) -> str | None:
    """An address or a path of GDAL's file systems as such a path; None for a file of this machine."""
    if name.startswith(VSI):
        return name
    if name.startswith(WEB):
        return f"/vsicurl/{name}"
    return next((vsi + name[len(head) :] for head, vsi in BUCKETS.items() if name.startswith(head)), None)
