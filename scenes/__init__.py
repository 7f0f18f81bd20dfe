"""Generates overhead scenes with exact road masks, for tests and training without real imagery. Needs OpenCV.

from dlink.scenes import scene

made = scene(seed=7, size=1024)  # made.image uint8 (S, S, 3) RGB, made.mask uint8 (S, S) 0 or 255
"""

from dlink.scenes.scene import Scene, scene, with_roads

__all__ = ["Scene", "scene", "with_roads"]
