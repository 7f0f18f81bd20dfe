"""What `dlink-bench` prints of a result: rates, soaks, energy, the machine, and whether it may be quoted."""

from collections.abc import Mapping, Sequence
from typing import Any

from dlink.bench.headline import row_name
from dlink.runtime.words import counted

Row = Mapping[str, Any]
MEGA = 1e6
MINUTE = 60.0  # seconds


def or_dash(value: float | None, form: str) -> str:
    """A number in a column as wide as `form` says; a dash where there is none."""
    width = form.partition(".")[0].lstrip(">")
    return f"{'-':>{width}}" if value is None else f"{value:{form}}"


def rate_table(rows: Sequence[Row]) -> list[str]:
    """A line for each number of views at a fixed rate."""
    if not rows:
        return []
    lines = [
        f"{rows[0]['rate']:g} frames a second, each a tile; the newest is next. Latency counts from when one was due.",
        "   views  p50 ms  p90 ms  p99 ms  max ms | age p50     p99  max ms | frames  dropped  roads/s  km2/h  J/tile",
    ]
    for r in rows:
        lines.append(
            f"{r['views']:>8} {r['p50_ms']:>7.1f} {r['p90_ms']:>7.1f} {r['p99_ms']:>7.1f} {r['max_ms']:>7.1f} | "
            f"{r['age_p50_ms']:>7.1f} {r['age_p99_ms']:>7.1f} {r['age_max_ms']:>7.1f} | "
            f"{r['offered']:>6} {r['dropped_share']:>8.1%} {r['achieved_per_s']:>8.2f} "
            f"{or_dash(r['km2_per_h'], '>6.1f')} {or_dash(r['joules_per_tile'], '>7.2f')}"
        )
    return lines


def soak_lines(soak: Row | None) -> list[str]:
    if not soak:
        return []
    first, last, part = soak["first"], soak["last"], part_name(soak["part_s"])
    took = f"{soak['seconds'] / MINUTE:.1f} minutes" if soak["seconds"] >= MINUTE else f"{soak['seconds']:.1f} s"
    lines = [
        f"{row_name(soak)}, {took}, {counted(soak['calls'], 'tile')}",
        f"first {part}: p50 {first['p50_ms']:.1f} ms, p99 {first['p99_ms']:.1f} ms ({counted(first['calls'], 'tile')})",
        f"last {part}:  p50 {last['p50_ms']:.1f} ms, p99 {last['p99_ms']:.1f} ms ({counted(last['calls'], 'tile')}), "
        f"{soak['p50_change']:.2f} and {soak['p99_change']:.2f} times the first",
    ]
    for name, where in (("memory", "of the process"), ("gpu_memory", "on the GPU")):
        if grown := soak[name]:
            lines.append(
                f"memory {where}: {grown['start_bytes'] / MEGA:.0f} MB at the start, "
                f"{grown['end_bytes'] / MEGA:.0f} MB at the end, "
                f"{grown['bytes_per_h'] / MEGA:+.1f} MB an hour after the first {part}"
            )
    if soak["joules_per_tile"] is not None:
        lines.append(f"{soak['joules_per_tile']:.2f} J a tile")
    return lines


def part_name(seconds: float) -> str:
    """What a soak compares: its first and last minute, or the halves of a run that is too short for these."""
    return "minute" if seconds >= MINUTE else f"half ({seconds:g} s)"


def machine_lines(result: Row) -> list[str]:
    """What the machine did meanwhile, and whether the figures may be quoted."""
    c, energy = result["conditions"], result["energy"]
    said = []
    if c["others_share"] is not None:
        said.append(f"other processes took {c['others_share']:.1%} of the processors' time")
    if c["stolen_share"]:
        said.append(f"the hypervisor {c['stolen_share']:.1%}")
    if c["load_average"]:
        said.append("load average {:.2f}, then {:.2f}".format(*c["load_average"]))
    if c["median_mhz"]:
        said.append(f"clock {c['median_mhz']:.0f} MHz, at least {c['min_mhz']:.0f}")
    if c["throttled"] is not None:
        after = f", first after {c['throttled_after_s']:.0f} s" if c["throttled_after_s"] else ""
        said.append(f"throttled {counted(c['throttled'], 'time')}{after}")
    if c["gpu_median_mhz"]:
        held = ", ".join(f"{name} {share:.0%}" for name, share in c["gpu_throttled"].items()) or "nothing"
        said.append(f"GPU {c['gpu_median_mhz']:.0f} MHz, at least {c['gpu_min_mhz']}, held back by {held}")
    lines = ["while measuring: " + "; ".join(said)] if said else []
    if energy["by"]:
        lines.append(f"energy by {' and '.join(energy['by'])}, idle power and other processes included")
    else:
        lines.append("energy is not counted: " + "; ".join(energy["not_read"]))
    lines += [f"no headline: {why}" for why in result["no_headline"]]
    return lines


def turns_lines(found: Row) -> list[str]:
    """A model beside PyTorch's best and the authors' procedure, with one number of views."""
    lines = [
        f"{row_name(found)}, {found['ours_s'] * 1e3:.1f} ms: {b['median']:.2f} times as fast as the {b['other']} "
        f"({b['least']:.2f} to {b['most']:.2f} over {counted(found['rounds'], 'round')} in turn; "
        f"{b['other_s'] * 1e3:.1f} ms)"
        for b in found["beside"]
    ]
    return lines + [f"did not run: {why}" for why in found["left_out"]]


def parts(r: Mapping[str, Any]) -> str:
    """The columns of where the time went; dashes for a plan, which does everything on the GPU."""
    if not r["network_ms"]:
        return f"{'-':>7} {'-':>8} {'-':>10} {'-':>7}"
    return f"{r['prepare_ms']:>7.1f} {r['network_ms']:>8.1f} {r['undo_ms']:>10.1f} {r['around_share']:>7.1%}"


def latency_table(result: Mapping[str, Any]) -> str:
    network, machine, file = result["network"], result["machine"], result["file"]
    slim = f", slim to {network['slim']:.1%}" if network["slim"] < 1 else ""
    lines = [
        f"{network['arch']} width {network['width']:g}{slim}, {network['precision']}, tile {network['tile']}, "
        f"{file['bytes'] / 1e6:.1f} MB; {result['engine']}",
        f"{machine['cpu']}, {counted(machine['cores'], 'core')}, {machine['system']}, Python {machine['python']}, "
        + ", ".join(f"{k} {v}" for k, v in machine["versions"].items()),
        "",
    ]
    if result["latency"]:
        lines.append(
            "   views  p50 ms  p90 ms  p99 ms  max ms  tiles/s   Mpx/s   km2/h  J/tile | "
            "prepare  network  undo+mean  around"
        )
    for r in result["latency"]:
        lines.append(
            f"{r['views']:>8} {r['p50_ms']:>7.1f} {r['p90_ms']:>7.1f} {r['p99_ms']:>7.1f} {r['max_ms']:>7.1f} "
            f"{r['tiles_per_s']:>8.2f} {r['mpx_per_s']:>7.2f} {or_dash(r['km2_per_h'], '>7.1f')} "
            f"{or_dash(r['joules_per_tile'], '>7.2f')} | {parts(r)}"
        )
    lines += [*rate_table(result["rate"]), *soak_lines(result["soak"]), "", *machine_lines(result)]
    if result["peak_bytes"]:
        lines += [f"peak memory of the process {result['peak_bytes'] / 1e6:.0f} MB"]
    if result["skipped"] is not None:
        lines += [f"{result['skipped']:.1%} of the tiles were skipped, and the times depend on that"]
    if b := result["baseline"]:
        lines.append(
            f"{b['median']:.2f} times as fast as {b['other']} ({b['least']:.2f} to {b['most']:.2f} over "
            f"{counted(b['rounds'], 'round')} in turn; {b['ours_s']:.2f} s and {b['theirs_s']:.2f} s for eight views)"
        )
    for found in result["best_torch"]:
        lines += turns_lines(found)
    return "\n".join(lines)
