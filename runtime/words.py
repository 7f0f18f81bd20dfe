"""Numbers of things in words."""


def counted(count: int, one: str, many: str = "") -> str:
    """counted(1, "tile") is "1 tile", counted(2, "tile") "2 tiles"."""
    return f"{count} {one if count == 1 else many or one + 's'}"
