"""Records and files: typed rows, the published formats, atomic writes, media."""
