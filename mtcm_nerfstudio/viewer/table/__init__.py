"""The page with the table of all frames, on its own address beside viser."""
