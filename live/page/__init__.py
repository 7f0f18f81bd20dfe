"""The ground station's page: video with its roads, the map, ages and counters; and /metrics."""
