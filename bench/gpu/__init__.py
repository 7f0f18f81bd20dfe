"""Runs the checks that need a GPU, on a host without a network, within half an hour: see README.md here."""
