"""Letting torch load nerfstudio's checkpoints without giving up its safe loader."""

import numpy as np
import torch


def allow_numpy_scalars() -> None:
    """Tell torch that numpy scalars in a checkpoint are harmless: nerfstudio's schedulers and optimizers hold some.

    Since torch 2.6 ``torch.load`` refuses what it does not know, and ns-eval, ns-render, ns-viewer, ns-export and
    resuming die of it. A scalar, its dtype and the classes of the numeric dtypes carry numbers and no code.
    """
    scalar = np.float64(0.0).__reduce__()[0]
    numeric = "?bhilqBHILQefdFD"
    allowed: list = [scalar, np.dtype, *{type(np.dtype(code)) for code in numeric}]
    # Checkpoints written under numpy 1 name the module that numpy 2 renamed, and the other way round.
    allowed += [(scalar, f"{package}.multiarray.scalar") for package in ("numpy.core", "numpy._core")]
    torch.serialization.add_safe_globals(allowed)
