"""A stretch of a line, and a line whose begin goes elsewhere.

A line's rows are x and y in metres, and the number of the vertex, by which it keeps its own coordinates; -1: it is new.
"""

import numpy as np

from dlink.maps.near import Points, distances, places_on

BEND = 2.0  # times an end's move: so much of the line bends with it
BENT = 0.45  # of a line, at most
STRAIGHT = 0.3  # metres off a straight line that make a vertex worth keeping
SAME = 1e-6  # metres


def between(line: Points, begin: float, end: float) -> Points:
    """A stretch of a line (K, 3), with new vertices where it is cut."""
    done = distances(line[:, :2])
    inner = line[(done > begin + SAME) & (done < end - SAME)]
    both = []
    for where, k in ((begin, 0), (end, -1)):
        at_end = abs(where - done[k]) < SAME
        both.append(line[k] if at_end else np.r_[places_on(line, done, np.array([where]))[0], -1])
    return np.vstack([both[0], inner, both[1]])


def with_begin(line: Points, place: Points) -> Points:
    """A line (K, 3) that begins elsewhere. Only its first metres bend, about twice as many as its begin moves."""
    done = distances(line[:, :2])
    if not done[-1]:
        return np.vstack([np.r_[place, -1], line[-1]])
    reach = min(max(1.0, BEND * float(np.hypot(*(line[0, :2] - place)))), BENT * done[-1])
    begin = np.r_[place, -1]
    rest = line[done > reach]
    bend = np.r_[places_on(line, done, np.array([reach]))[0], -1]
    to = rest[0, :2] - place
    size = float(np.hypot(*to))
    across = (bend[:2] - place) @ (to[1], -to[0]) / size if size else 0.0
    return np.vstack([begin, rest] if abs(across) < STRAIGHT else [begin, bend, rest])
