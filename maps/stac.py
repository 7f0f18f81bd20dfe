"""Reads rasters from STAC items, for maps of them. Items are GeoJSON features with `assets` (STAC 1.0 and 1.1)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from dlink.imagery.kinds import SUFFIXES
from dlink.imagery.notes import say
from dlink.maps.job.addresses import remote_path
from dlink.runtime.errors import BadInput
from dlink.runtime.values import load_json

RASTER = "image/"  # how the media types of rasters begin
WANTED = {"data", "visual"}  # roles of what an item is about
BESIDE = {"thumbnail", "overview", "metadata"}  # roles of what is beside it
MOST_NAMES = 12  # in a message

Assets = Mapping[str, Mapping[str, Any]]


def stac_sources(path: Path, asset: str | None = None) -> list[str]:
    """The rasters of the items in a file, one of each item, in the file's order.

    Args:
        path: An Item, or an ItemCollection (a FeatureCollection of items) as a STAC API answers.
        asset: The name of the asset; None: the only raster whose role is `data` or `visual`, or that has no role.

    Returns:
        Absolute paths, and paths of GDAL's file systems. Relative addresses begin at the file's folder.

    Raises:
        BadInput: The file has no items, or an item has no such asset, or several.
    """
    return [address(path, i, item, asset) for i, item in enumerate(items(path), 1)]


def items(path: Path) -> list[dict[str, Any]]:
    try:
        found = load_json(path.read_bytes())
    except ValueError as e:
        raise BadInput(f"{path}: not JSON: {e}") from e
    kind = found.get("type") if isinstance(found, dict) else None
    if kind in ("Catalog", "Collection"):
        raise BadInput(f"{path}: is a STAC {kind}, which has no rasters itself; give the files of its items")
    some = found.get("features") if kind == "FeatureCollection" else [found]
    if kind not in ("FeatureCollection", "Feature") or not isinstance(some, list):
        raise BadInput(f"{path}: neither a STAC item nor a collection of items; give rasters or items")
    for i, item in enumerate(some, 1):
        assets = item.get("assets") if isinstance(item, dict) else None
        if not isinstance(assets, dict) or not all(isinstance(each, dict) for each in assets.values()):
            raise BadInput(f"{path}: feature {i} has no assets, so it is no STAC item; --aoi takes areas")
    if not some:
        raise BadInput(f"{path}: has no items")
    links = found.get("links") or [] if kind == "FeatureCollection" else []
    if any(isinstance(link, dict) and link.get("rel") == "next" for link in links):
        say(path, f"is one page of several of an answer; only its {len(some)} items are in the map")
    return some


def address(path: Path, number: int, item: Mapping[str, Any], asset: str | None) -> str:
    """The path of an item's raster."""
    where = f"{path}: item {str(item.get('id') or number)[:80]}"
    chosen = named(where, item["assets"], asset)
    href = item["assets"][chosen].get("href")
    if not isinstance(href, str) or not href:
        raise BadInput(f"{where}: its asset {chosen} has no address (href)")
    if (remote := remote_path(href)) is not None:
        return remote
    parts = urlsplit(href)
    if parts.scheme == "file":
        return url2pathname(parts.path)
    if parts.scheme and len(parts.scheme) > 1:  # one letter is a drive
        raise BadInput(f"{where}: its asset {chosen} is at {href[:80]}; http, https, s3, gs, az and file are read")
    plain = path.parent / href
    return str((plain if plain.exists() else path.parent / unquote(href)).absolute())


def named(where: str, assets: Assets, asset: str | None) -> str:
    """The name of the asset that is mapped."""
    if asset is not None:
        if asset not in assets:
            raise BadInput(f"{where}: has no asset {asset[:80]}, but {in_words(list(assets))}")
        return asset
    rasters = [name for name, each in assets.items() if is_raster(each) and not roles(each) & BESIDE]
    about = [name for name in rasters if roles(assets[name]) & WANTED]
    found = about or [name for name in rasters if not roles(assets[name])]
    if not found:
        raise BadInput(
            f"{where}: none of its assets is a raster of data, but {in_words(list(assets))}; --asset names one"
        )
    if len(found) > 1:
        raise BadInput(f"{where}: has {len(found)} rasters, {in_words(found)}; --asset NAME says which")
    return found[0]


def roles(asset: Mapping[str, Any]) -> set[str]:
    given = asset.get("roles")
    return {str(role) for role in given} if isinstance(given, list) else set()


def is_raster(asset: Mapping[str, Any]) -> bool:
    """Whether it is one by its media type, or without a type by its name."""
    kind = asset.get("type")
    if isinstance(kind, str):
        return kind.lower().startswith(RASTER)
    return Path(urlsplit(str(asset.get("href", ""))).path).suffix.lower() in SUFFIXES


def in_words(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (", ".join(name[:40] for name in names[:MOST_NAMES]) or "none") + more
