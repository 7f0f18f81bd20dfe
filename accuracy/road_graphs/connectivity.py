"""Compares the roads of masks, as graphs, with a label's: APLS, broken and bridged links."""

from dlink.accuracy.pixels import Mask
from dlink.accuracy.road_graphs.apls import apls
from dlink.accuracy.road_graphs.graph import from_mask
from dlink.accuracy.road_graphs.links import links_of
from dlink.accuracy.roads import Connectivity


def connectivity_with(label: Mask, gsd_m: float) -> Connectivity:
    """A function that measures masks against a label, which is traced once. `gsd_m` is metres a pixel."""
    truth = from_mask(label)

    def measure(mask: Mask) -> tuple[float, float, float, float]:
        own = from_mask(mask)
        links = links_of(mask, label, (own, truth), gsd_m)
        return apls(own.graph, truth.graph, gsd_m).score, links.broken, links.bridged, links.km

    return measure
