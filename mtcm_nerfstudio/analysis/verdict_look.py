"""How verdicts look wherever a person meets them: in the report, the viewer and the plots.

The colours are those of Okabe and Ito (Color Universal Design, 2008) or near them, dark enough for text on a light
ground and light enough on a dark one; signs say the same to whoever sees no colours.
"""

from collections.abc import Mapping

SIGNS: Mapping[str, str] = {"kept": "●", "repaired": "■", "dropped": "✕", "suggested": "▲"}
ON_LIGHT: Mapping[str, str] = {"kept": "#0072B2", "repaired": "#B8860B", "dropped": "#D55E00", "suggested": "#8E4F8A"}
ON_DARK: Mapping[str, str] = {"kept": "#56B4E9", "repaired": "#F0C24B", "dropped": "#F0813A", "suggested": "#D79AD3"}


def style_variables() -> str:
    """Return CSS that declares ``--kept`` and so on for either ground."""
    light, dark = (";".join(f"--{name}:{colour}" for name, colour in look.items()) for look in (ON_LIGHT, ON_DARK))
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
