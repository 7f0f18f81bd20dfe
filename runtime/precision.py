"""Precisions in words, for any engine."""

from collections.abc import Mapping


def shares_in_words(shares: Mapping[str, float]) -> str:
    """Shares of the work by precision, the largest first: "bf16", or "int8 97 %, bf16"."""
    if len(shares) < 2:
        return "".join(shares)
    first, *rest = shares
    return ", ".join([f"{first} {shares[first]:.0%}".replace("%", " %"), *rest])
