"""Where the eye stands, and where a point of the scene is in the image. No scene, no pixels' colours."""

import math

import numpy as np

EYE, TARGET = (0.0, 4.2, -6.0), (0.0, 0.35, 0.0)
VIEW_WIDTH = 4.4  # how wide the image is at the target
DISTANCE = math.dist(EYE, TARGET)
FORWARD = (np.array(TARGET) - np.array(EYE)) / DISTANCE
RIGHT = np.array((1.0, 0.0, 0.0))
UP = np.cross(FORWARD, RIGHT)


def project(point: tuple[float, float, float], size: int) -> tuple[float, float]:
    """Where a point of the scene is in an image of `size` pixels: (x, y)."""
    ray = np.array(point) - np.array(EYE)
    pixel = _pixel(ray, size)
    return size / 2 + float(ray @ RIGHT) / pixel, size / 2 - float(ray @ UP) / pixel


def projected_length(length: float, point: tuple[float, float, float], size: int) -> float:
    """How many pixels of an image of `size` a length seen face on at `point` covers."""
    return length / _pixel(np.array(point) - np.array(EYE), size)


def _pixel(ray: np.ndarray, size: int) -> float:
    """How wide a pixel is in scene units where a ray from the eye ends."""
    return VIEW_WIDTH / DISTANCE / size * float(ray @ FORWARD)
