"""Photos or a video turned into a posed capture."""
