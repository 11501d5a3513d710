"""How verdicts look wherever a person meets them: in the report, the viewer and the plots.

The colours are those of Okabe and Ito (Color Universal Design, 2008), which any kind of colour vision can tell apart;
on a light ground they are darker, so that text in them can be read. Signs say the same to whoever sees no colours.
"""

from collections.abc import Mapping

SIGNS: Mapping[str, str] = {"kept": "●", "repaired": "■", "dropped": "✕", "suggested": "▲"}
ON_LIGHT: Mapping[str, str] = {"kept": "#007A5A", "repaired": "#8A7400", "dropped": "#C25000", "suggested": "#0072B2"}
ON_DARK: Mapping[str, str] = {"kept": "#009E73", "repaired": "#F0E442", "dropped": "#D55E00", "suggested": "#56B4E9"}


def style_variables() -> str:
    """Return CSS that declares ``--kept`` and so on for either ground."""
    light, dark = (";".join(f"--{name}:{colour}" for name, colour in look.items()) for look in (ON_LIGHT, ON_DARK))
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
