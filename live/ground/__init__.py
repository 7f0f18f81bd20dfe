"""What a camera sees of the ground: its footprint, its resolution, and frames laid onto a map."""
