"""What waits for a GPU, on a host that has one, has no network and is lent for half an hour: see README.md here."""
