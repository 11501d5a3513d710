"""How good a picture is for itself: sharpness as most tools measure it, and CleanVision's scores."""

from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from PIL import Image

VERSION = "1"
"""Changes whenever the same picture gives other numbers."""
HAS_CLEANVISION = find_spec("cleanvision") is not None

_BRIGHTNESS_SIDE = 512
"""Brightness is taken from a picture of this longer side: the same to the third digit, and a tenth of the time."""


def laplacian_variance(image: Image.Image) -> float:
    """Return the usual measure of sharpness: the variance of the Laplacian of the grey image."""
    return float(cv2.Laplacian(np.asarray(image.convert("L")), cv2.CV_64F).var())


def cleanvision_score(image: Image.Image) -> float:
    """Return the worst of CleanVision's scores for blur, darkness and glare, in [0, 1]; NaN where it is absent."""
    if not HAS_CLEANVISION:
        return float("nan")
    import pandas as pd
    from cleanvision.issue_managers import IssueType
    from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager

    small = image.copy()
    small.thumbnail((_BRIGHTNESS_SIDE, _BRIGHTNESS_SIDE), Image.Resampling.BOX)
    manager: Any = ImagePropertyIssueManager()
    worst = 1.0
    for issue, picture in ((IssueType.BLURRY, image), (IssueType.DARK, small), (IssueType.LIGHT, small)):
        judge = manager.image_properties[issue.value]
        settings = {name: value for name, value in manager.params[issue.value].items() if name != "threshold"}
        scores = judge.get_scores(pd.DataFrame([judge.calculate(picture)]), issue.value, **settings)
        worst = min(worst, float(scores.iloc[0, 0]))
    return worst
