"""What this machine has of what dlink can use, and which extra brings what is missing."""
