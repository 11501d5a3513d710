"""Writing captures: the files of one, and a drop-in capture of the kept frames."""
