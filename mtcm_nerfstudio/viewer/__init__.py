"""Look at what was decided, in a browser, and overrule it: the scene and its panel on viser, and a table."""
