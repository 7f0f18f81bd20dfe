"""Damage that a decoder hides: what a Source gives is the picture that was sent, or nothing."""

import logging
import random

import av
import av.logging
import numpy as np
import pytest

from dlink.live.video.address import address_of
from dlink.live.video.counters import Seen
from dlink.live.video.decoder import Decoder
from dlink.live.video.recording import frames_of
from dlink.live.video.source import Source
from tests.support.video import write_video

DATAGRAM = 7 * 188  # bytes, of MPEG-TS
FRAMES = 150
HEADER = 3 * DATAGRAM  # the tables and a part of the first key frame


@pytest.fixture(scope="module", params=[0, 2], ids=["in order", "B-frames"])
def video(request, tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "a.ts", FRAMES, gop=15, bframes=request.param)


def lossy(path, seed, share=0.04):
    """The file as a link brings it that loses datagrams."""
    data, draw = path.read_bytes(), random.Random(seed)
    parts = [data[:HEADER]] + [data[at : at + DATAGRAM] for at in range(HEADER, len(data), DATAGRAM)]
    out = path.with_name(f"lossy{seed}.ts")
    out.write_bytes(b"".join(part for i, part in enumerate(parts) if not i or draw.random() > share))
    return out


def given(path, **options):
    """Pictures by time stamp, and the source."""
    with Source(address_of(str(path)), **options) as source:
        return {round(taken.pts, 3): taken.pixels() for taken in source}, source


def differing(pictures, whole):
    return [stamp for stamp, pixels in pictures.items() if not np.array_equal(pixels, whole[stamp])]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_given_of_a_lossy_video_is_what_was_sent(video, seed):
    whole, _ = given(video)
    pictures, source = given(lossy(video, seed))
    assert len(whole) == FRAMES and FRAMES / 10 < len(pictures) < FRAMES - 5
    assert not differing(pictures, whole)
    assert source.seen.corrupt > 0 and source.seen.damage


def test_damaged_frames_are_given_if_they_are_wanted(video):
    whole, _ = given(video)
    path = lossy(video, 1)
    pictures, source = given(path, damaged=True)
    assert len(pictures) > len(given(path)[0]) and differing(pictures, whole)
    assert source.seen.corrupt > 0


def test_a_sound_video_has_no_damage(video):
    pictures, source = given(video)
    assert len(pictures) == FRAMES and source.seen.corrupt == source.seen.refused == 0 and not source.seen.damage


@pytest.mark.parametrize("seed", range(2))
def test_the_recording_of_a_lossy_video_gives_the_same_pictures_again(video, seed, tmp_path):
    with Source(address_of(str(lossy(video, seed))), record=tmp_path) as source:
        delivered = [(taken.video, taken.index, taken.pixels()) for taken in source]
    for name in {name for name, *_ in delivered}:
        recorded = list(frames_of(tmp_path / name))
        for _, index, pixels in (each for each in delivered if each[0] == name):
            np.testing.assert_array_equal(recorded[index], pixels)


def test_after_damage_frames_are_sound_from_the_next_key_frame_on(tmp_path):
    video = write_video(tmp_path / "a.ts", 45, gop=15)
    with av.open(str(video)) as file:
        stream = file.streams.video[0]
        decoder, sound = Decoder(stream, Seen()), []
        for packet in file.demux(stream):
            packet.is_corrupt = False
            if packet.size and len(sound) == 20:
                decoder.damaged("for this test")
            sound += [each for _, each in decoder.decode(packet)]
    assert sound == [True] * 20 + [False] * 10 + [True] * 15


def test_an_applications_own_log_of_pyav_is_left_as_it_is(tmp_path):
    video = lossy(write_video(tmp_path / "a.ts", 60), 0)
    before = av.logging.get_level()
    try:
        av.logging.set_level(av.logging.VERBOSE)
        given(video)
        assert av.logging.get_level() == av.logging.VERBOSE
    finally:
        av.logging.set_level(before)


def test_damage_is_not_printed(tmp_path, capfd, caplog):
    video = lossy(write_video(tmp_path / "a.ts", 60), 0)
    before = av.logging.get_level()
    logger = logging.getLogger("libav")
    level = logger.level
    try:
        av.logging.set_level(None)
        given(video)
        assert capfd.readouterr().err == "" and not caplog.records
    finally:
        av.logging.set_level(before)
        logger.setLevel(level)
