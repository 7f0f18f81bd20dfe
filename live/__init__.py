"""Roads of a live video: newest frames first, in time, with counters that add up."""
