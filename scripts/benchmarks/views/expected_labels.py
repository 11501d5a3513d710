"""What a camera's label should be, from a rendered scene's own geometry: where its subject is, and which way is up.

Written from the words of the definitions (``views/labels/pose_labels.py``) alone, by plain trigonometry, so that the
two agree only if both are right.
"""

import math

import numpy as np
from jaxtyping import Float

_PLACES = ("front", "three-quarter {}", "{} side", "three-quarter back {}", "back")


def expected_label(
    c2w: Float[np.ndarray, "4 4"], subject: Float[np.ndarray, "3"], front: Float[np.ndarray, "3"], usual: float
) -> tuple[str, float]:
    """Return the label of a camera about a subject in a world whose z axis points up, and how sure that is.

    Args:
        c2w: OpenGL camera-to-world.
        subject: its middle.
        front: where somebody stands who sees the front.
        usual: median distance of all cameras from the subject.

    Returns:
        The label, and by how many degrees (or per cent of the usual distance) the nearest limit is missed.
    """
    x, y, z = (float(number) for number in c2w[:3, 3] - subject)
    distance = math.sqrt(x * x + y * y + z * z)
    ahead = math.atan2(front[1] - subject[1], front[0] - subject[0])
    azimuth = (math.degrees(math.atan2(y, x) - ahead) + 180.0) % 360.0 - 180.0
    elevation = math.degrees(math.asin(z / distance))
    sight = -c2w[:3, 2]
    pitch = math.degrees(math.asin(float(sight[2])))
    towards = -(c2w[:3, 3] - subject) / distance
    miss = math.degrees(math.acos(min(1.0, float(sight @ towards))))
    roll = math.degrees(math.atan2(float(c2w[2, 0]), float(c2w[2, 1])))
    steep = abs(elevation) > 65.0
    # To the right of somebody at the front is where the azimuth, counted against the clock from above, grows.
    side = "right" if azimuth > 0 else "left"
    place = _PLACES[sum(abs(azimuth) > limit for limit in (22.5, 67.5, 112.5, 157.5))].format(side)
    words = ["from above" if elevation > 0 else "from below"] if steep else [place]
    words += ["looking down" if pitch < 0 else "looking up"] if not steep and abs(pitch) > 20.0 else []
    words += ["looking away"] if miss > 45.0 else []
    words += ["close-up"] if distance < 0.6 * usual else ["far away"] if distance > 1.6 * usual else []
    words += ["upside down" if abs(roll) > 135.0 else "tilted"] if abs(pitch) < 70.0 and abs(roll) > 20.0 else []
    limits = [abs(abs(elevation) - 65.0), abs(miss - 45.0), abs(abs(roll) - 20.0)]
    limits += [100.0 * abs(distance / usual - limit) for limit in (0.6, 1.6)]
    if not steep:
        limits += [abs(abs(pitch) - 20.0), *(abs(abs(azimuth) - limit) for limit in (22.5, 67.5, 112.5, 157.5))]
    return ", ".join(words), min(limits)
