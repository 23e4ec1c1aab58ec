"""What lasts: versions, corrections and bases on disk, written whole or not at all. `training` keeps its own runs."""
