"""Where a camera was and how it looked: what every kind of telemetry is turned into."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pose:
    """A camera at one time. What is not known is None; nothing is filled in by a guess.

    The camera's axes are those of an aircraft that looks along the optical axis: with yaw 0, pitch -90 and roll 0 the
    camera looks straight down and the top of the image is north.

    Args:
        latitude: Degrees north, WGS 84.
        longitude: Degrees east, WGS 84.
        altitude_m: Height of the camera above mean sea level, metres.
        height_m: Height of the camera above the ground below it, metres.
        yaw: Direction of the optical axis (of the image's top, where it looks straight down), degrees clockwise from
            true north.
        pitch: Optical axis above the horizon, degrees: -90 looks straight down, 0 at the horizon.
        roll: Turn of the camera about its optical axis, degrees: positive where the right side of the image goes down.
        fov: Horizontal field of view, degrees.
        vertical_fov: Vertical field of view, degrees. None: that of square pixels.
        utc: When it was measured, seconds since 1970-01-01 UTC.
    """

    latitude: float
    longitude: float
    altitude_m: float | None = None
    height_m: float | None = None
    yaw: float | None = None
    pitch: float | None = None
    roll: float | None = None
    fov: float | None = None
    vertical_fov: float | None = None
    utc: float | None = None
