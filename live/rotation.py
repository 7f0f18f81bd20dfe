"""Rotations of a camera: angles, matrices, and what lies between two of them.

A matrix turns the camera's axes (forward, right of the image, down of the image) into north, east, down. Angles are
those of pose.py: matrix = Rz(yaw) Ry(pitch) Rx(roll), as of an aircraft that looks along its nose.
"""

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]  # (3, 3)
NEAR_VERTICAL = 1e-9  # of the cosine of the pitch, below which yaw and roll turn about the same axis


def matrix_of(yaw: float, pitch: float, roll: float) -> Matrix:
    """The rotation of three angles in degrees."""
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (yaw, pitch, roll))
    about_down = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_right = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_forward = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    product: Matrix = about_down @ about_right @ about_forward
    return product


def angles_of(matrix: Matrix) -> tuple[float, float, float]:
    """Yaw from 0 to 360, pitch and roll in degrees. A camera that looks straight down or up has roll 0."""
    m = matrix
    pitch = math.atan2(-m[2, 0], math.hypot(m[2, 1], m[2, 2]))
    if math.hypot(m[2, 1], m[2, 2]) < NEAR_VERTICAL:
        yaw, roll = math.atan2(-m[0, 1], m[1, 1]), 0.0
    else:
        yaw, roll = math.atan2(m[1, 0], m[0, 0]), math.atan2(m[2, 1], m[2, 2])
    return math.degrees(yaw) % 360, math.degrees(pitch), math.degrees(roll)


def between(first: Matrix, second: Matrix, share: float) -> Matrix:
    """The rotation on the shortest way from the first (share 0) to the second (share 1), or beyond it."""
    turn = first.T @ second
    angle = math.acos(max(-1.0, min(1.0, (float(np.trace(turn)) - 1) / 2)))
    if angle < 1e-12:
        return first
    if math.pi - angle < 1e-6:  # the axis is not known well; such a turn within a fraction of a second is no flight
        return first if share < 0.5 else second
    axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / (2 * math.sin(angle))
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    part = share * angle
    product: Matrix = first @ (np.eye(3) + math.sin(part) * cross + (1 - math.cos(part)) * cross @ cross)
    return product
