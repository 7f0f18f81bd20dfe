"""The networks (D-LinkNet and its relatives) with the published key names, and their checkpoints. Needs PyTorch."""
