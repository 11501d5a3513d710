"""Cameras in known layouts."""

import numpy as np


def rings(count=24, levels=(0.0, 35.0)):
    """Rings of cameras about the origin at several elevations."""
    rows = []
    for level in np.radians(levels):
        for turn in np.linspace(0.0, 2.0 * np.pi, count, endpoint=False):
            z = np.array([np.cos(level) * np.cos(turn), np.cos(level) * np.sin(turn), np.sin(level)])
            x = np.array([-np.sin(turn), np.cos(turn), 0.0])
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = np.stack([x, np.cross(z, x), z], axis=1), 3.0 * z
            rows.append(pose)
    return np.stack(rows)


def walk(count=30):
    """Cameras that walk along a wall and look at it."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = np.arange(count) * 0.5
    return poses
