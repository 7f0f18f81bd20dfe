"""Fixtures that several modules share."""

from tests.fake_machine import gpu, machine

__all__ = ["gpu", "machine"]
