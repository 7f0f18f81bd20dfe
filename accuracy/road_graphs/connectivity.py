"""Roads of a mask as a graph, held against a label's: APLS, and links that are broken or bridged.

Needs what graph.py, apls.py and links.py need.
"""

from dlink.accuracy.pixels import Mask
from dlink.accuracy.road_graphs.apls import apls
from dlink.accuracy.road_graphs.graph import from_mask
from dlink.accuracy.road_graphs.links import links_of
from dlink.accuracy.roads import Connectivity


def connectivity_with(label: Mask, gsd_m: float) -> Connectivity:
    """Who judges masks by a label, which is traced once. `gsd_m` is metres a pixel."""
    truth = from_mask(label)

    def look(mask: Mask) -> tuple[float, float, float, float]:
        own = from_mask(mask)
        cut = links_of(mask, label, (own, truth), gsd_m)
        return apls(own.graph, truth.graph, gsd_m).score, cut.broken, cut.bridged, cut.km

    return look
