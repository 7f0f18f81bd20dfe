"""What Prometheus reads at /metrics: https://prometheus.io/docs/instrumenting/exposition_formats."""

from dataclasses import asdict

from dlink.live.page.board import BUCKETS, Board

TYPE = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES = ("roads", "late", "replaced", "expired", "failed", "left")
NUMBERS = {  # of the board's state: name there -> name here, kind, words
    "restarts": ("engine_restarts_total", "counter", "Times that the engine was opened again."),
    "connections": ("source_connections_total", "counter", "Connections of the video's source."),
    "corrupt": ("source_corrupt_frames_total", "counter", "Frames that the video's source delivered damaged."),
    "telemetry_refused": ("telemetry_refused_total", "counter", "Sets of telemetry that were refused as damaged."),
}


def metrics(board: Board) -> str:
    """The text of all metrics."""
    with board.lock:
        counts, state, roads = asdict(board.counts), dict(board.state), board.roads
        ages, total = list(board.ages.counts), board.ages.total
        age = roads.age() if roads else None
    lines = head("frames_total", "counter", "Offered frames by what became of them.")
    lines += [f'dlink_live_frames_total{{outcome="{what}"}} {counts[what]}' for what in OUTCOMES]
    lines += head("frames_offered_total", "counter", "Offered frames.")
    lines += [f"dlink_live_frames_offered_total {counts['offered']}"]
    lines += head("frames_waiting", "gauge", "Frames that wait or are being computed.")
    lines += [f"dlink_live_frames_waiting {counts['waiting']}"]
    lines += head("running", "gauge", "1 while the engine computes frames, 0 while it is opened again.")
    lines += [f"dlink_live_running {int(state.get('state') == 'running')}"]
    if age is not None:
        lines += head("newest_age_seconds", "gauge", "Time since the newest frame with roads was captured.")
        lines += [f"dlink_live_newest_age_seconds {age:.6f}"]
        lines += head("views", "gauge", "Views of the newest frame.")
        lines += [f"dlink_live_views {float(roads.views if roads else 0):g}"]
    lines += head("problems", "gauge", "Things that went wrong for good, such as a full disk.")
    lines += [f"dlink_live_problems {len(state.get('problems', ()))}"]
    for key, (name, kind, words) in NUMBERS.items():
        if key in state:
            lines += [*head(name, kind, words), f"dlink_live_{name} {state[key]}"]
    lines += head("age_seconds", "histogram", "Age of roads when they were done.")
    below = 0
    for limit, count in zip((*map(str, BUCKETS), "+Inf"), ages, strict=True):
        below += count
        lines += [f'dlink_live_age_seconds_bucket{{le="{limit}"}} {below}']
    lines += [f"dlink_live_age_seconds_sum {total:.6f}", f"dlink_live_age_seconds_count {below}"]
    return "\n".join(lines) + "\n"


def head(name: str, kind: str, words: str) -> list[str]:
    return [f"# HELP dlink_live_{name} {words}", f"# TYPE dlink_live_{name} {kind}"]
