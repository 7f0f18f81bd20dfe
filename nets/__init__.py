"""The networks of the D-LinkNet paper with the published key names, and their checkpoints. Needs torch."""
