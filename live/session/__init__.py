"""What a flight leaves: a folder with its video, a line for every offered frame, the masks and a map."""
