"""What OpenStreetMap's tag `highway` says: which kinds are roads for vehicles.

https://wiki.openstreetmap.org/wiki/Key:highway
"""

from collections.abc import Mapping

# Kinds of `highway` that are not roads: for people on foot or horses, not built or gone, or not ways at all.
FEET = {
    "bridleway",
    "corridor",
    "crossing",
    "cycleway",
    "elevator",
    "escalator",
    "footway",
    "path",
    "pedestrian",
    "steps",
}
UNBUILT = {"abandoned", "construction", "no", "planned", "proposed", "razed"}
OTHERS = {"bus_guideway", "bus_stop", "busway", "platform", "raceway", "rest_area", "services", "street_lamp"}
NOT_ROADS = FEET | UNBUILT | OTHERS | {"traffic_signals"}


def is_street(tags: Mapping[str, str]) -> bool:
    return "highway" in tags and tags["highway"] not in NOT_ROADS and tags.get("area") != "yes"
