"""Where cameras stand about what they look at, and how to say so in words."""
