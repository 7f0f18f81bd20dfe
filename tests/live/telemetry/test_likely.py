"""Positions that a damaged set has although its checksum is right: they move no map."""

from dlink.live import Pose
from dlink.live.telemetry.likely import AGREE, Likely
from dlink.live.telemetry.telemetry import Klv, TelemetryOptions
from tests.support.klv import camera

NORTH = 1e-5  # degrees, about a metre


def pose(latitude, altitude=600.0):
    return Pose(latitude=latitude, longitude=8.0, altitude_m=altitude)


def test_a_flight_is_likely():
    likely = Likely()
    assert all(likely.take(i / 10, pose(47 + i * NORTH)) for i in range(100))


def test_a_position_elsewhere_is_left_out_and_the_next_one_is_taken():
    likely = Likely()
    assert likely.take(0.0, pose(47.0))
    assert not likely.take(0.1, pose(47.2)) and not likely.take(0.2, pose(47.0, altitude=9000.0))
    assert likely.take(0.3, pose(47.0 + NORTH))


def test_a_flight_that_begins_with_a_damaged_position_is_found_again():
    likely = Likely()
    likely.take(0.0, pose(40.0))
    taken = [likely.take(i / 10, pose(47.0 + i * NORTH)) for i in range(1, 10)]
    assert taken == [False] * (AGREE - 1) + [True] * (10 - AGREE)


def test_damaged_positions_that_do_not_agree_are_never_taken():
    likely = Likely()
    likely.take(0.0, pose(47.0))
    assert not any(likely.take(i / 10, pose(47.0 + 0.5 * i)) for i in range(1, 20))


def klv_set(utc, latitude):
    return camera(utc, latitude, 8.0, 600.0, 0.0, -90.0)


def test_the_telemetry_leaves_out_and_counts_a_set_that_cannot_be():
    telemetry = Klv(TelemetryOptions())
    for i, latitude in enumerate((47.0, 47.0, 47.3, 47.0, 47.0)):
        telemetry.on_data(klv_set(1e9 + i / 10, latitude), i / 10, 100.0 + i / 10, 1)
    assert telemetry.unlikely == 1
    assert abs(telemetry.track.at(0.2).latitude - 47.0) < 1e-6


def test_two_sets_in_one_packet_keep_their_own_times():
    telemetry = Klv(TelemetryOptions())
    telemetry.on_data(klv_set(1e9, 47.0) + klv_set(1e9 + 0.1, 47.0 + NORTH), 5.0, 100.0, 1)
    assert abs(telemetry.track.at(5.0).latitude - 47.0 - NORTH) < 1e-7
    assert abs(telemetry.track.at(4.9).latitude - 47.0) < 1e-7


def test_a_field_of_view_that_is_given_takes_the_place_of_the_telemetrys():
    for given, fov in ((None, 60.0), (30.0, 30.0)):
        telemetry = Klv(TelemetryOptions(fov=given))
        telemetry.on_data(klv_set(1e9, 47.0), 5.0, 100.0, 1)
        assert abs(telemetry.track.at(5.0).fov - fov) < 0.01 and "1 positions, 0 damaged" in telemetry.heard


def test_sets_without_time_stamps_are_dated_by_their_arrival():
    telemetry = Klv(TelemetryOptions())
    for i in range(3):
        telemetry.on_data(klv_set(1e9 + i / 10, 47.0 + i * NORTH), None, 100.0 + i / 10, 1)
    assert abs(telemetry.track.at(100.1).latitude - 47.0 - NORTH) < 1e-7
