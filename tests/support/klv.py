"""Writes MISB ST 0601 sets, for tests."""

KEY = bytes.fromhex("060e2b34020b01010e01030101000000")
UNSIGNED = {5: (2, 0, 360), 15: (2, -900, 19000), 16: (2, 0, 180), 17: (2, 0, 180), 18: (4, 0, 360), 20: (4, 0, 360),
            25: (2, -900, 19000)}  # fmt: skip
SIGNED = {6: (2, 20), 7: (2, 50), 13: (4, 90), 14: (4, 180), 19: (4, 180), 90: (4, 90), 91: (4, 90)}


def item(tag, value):
    """The bytes of an item."""
    if isinstance(value, bytes):
        data = value
    elif tag in UNSIGNED:
        size, low, high = UNSIGNED[tag]
        data = round((value - low) / (high - low) * ((1 << 8 * size) - 1)).to_bytes(size, "big")
    else:
        size, high = SIGNED[tag]
        data = round(value / high * ((1 << 8 * size - 1) - 1)).to_bytes(size, "big", signed=True)
    return bytes([tag, len(data)]) + data


def local_set(utc, values):
    """A set with its checksum; `values` by tag are physical values, or the bytes of an item."""
    body = bytes([2, 8]) + round(utc * 1e6).to_bytes(8, "big")
    body += b"".join(item(tag, value) for tag, value in values.items()) + bytes([65, 1, 8, 1, 2])
    size = len(body) + 2
    head = KEY + (bytes([size]) if size < 128 else bytes([0x81, size]))
    total = 0
    for i, byte in enumerate(head + body):
        total += byte << (8 if i % 2 == 0 else 0)
    return head + body + (total & 0xFFFF).to_bytes(2, "big")


def camera(utc, latitude, longitude, altitude, yaw, pitch, roll=0.0, fov=60.0, ground=0.0):
    """A set of a camera whose platform flies level to the north, so that the sensor's angles are the camera's."""
    return local_set(
        utc,
        {5: 0.0, 6: 0.0, 7: 0.0, 13: latitude, 14: longitude, 15: altitude, 16: fov, 18: yaw % 360, 19: pitch,
         20: roll % 360, 25: ground},
    )  # fmt: skip
