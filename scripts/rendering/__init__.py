"""The parts of the scene renderer: textures, shapes, camera paths, ray casting, and the files of a capture."""
