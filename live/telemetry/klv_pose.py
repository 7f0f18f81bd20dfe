"""The camera of a MISB ST 0601 set."""

from dlink.live.pose import Pose
from dlink.live.rotation import angles_of, matrix_of
from dlink.live.telemetry.klv import LocalSet

HEADING, PITCH, ROLL = 5, 6, 7  # of the platform
LATITUDE, LONGITUDE, ALTITUDE = 13, 14, 15  # of the sensor
FOV, VERTICAL_FOV = 16, 17
AZIMUTH, ELEVATION, SENSOR_ROLL = 18, 19, 20  # of the sensor, relative to the platform
GROUND = 25  # elevation of the frame's centre
FULL_PITCH, FULL_ROLL = 90, 91


def pose_of(found: LocalSet) -> Pose | None:
    """The camera of a set, or None where the set does not say where it is.

    The sensor's angles are relative to the platform, so its rotation follows the platform's; angles are not added. The
    height above the ground is that above the elevation of the frame's centre.
    """
    values = found.values
    if LATITUDE not in values or LONGITUDE not in values:
        return None
    altitude, ground = values.get(ALTITUDE), values.get(GROUND)
    yaw, pitch, roll = angles(values)
    return Pose(
        latitude=values[LATITUDE],
        longitude=values[LONGITUDE],
        altitude_m=altitude,
        height_m=None if altitude is None or ground is None else altitude - ground,
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        fov=values.get(FOV) or None,
        vertical_fov=values.get(VERTICAL_FOV) or None,
        utc=found.utc,
    )


def angles(values: dict[int, float]) -> tuple[float, float, float] | tuple[None, None, None]:
    """Yaw, pitch and roll of the camera; None where one of the angles that make them is not known."""
    platform = (values.get(HEADING), values.get(FULL_PITCH, values.get(PITCH)), values.get(FULL_ROLL, values.get(ROLL)))
    sensor = (values.get(AZIMUTH), values.get(ELEVATION), values.get(SENSOR_ROLL))
    known = [angle for angle in (*platform, *sensor) if angle is not None]
    if len(known) < len(platform) + len(sensor):
        return None, None, None
    return angles_of(matrix_of(*known[:3]) @ matrix_of(*known[3:]))
