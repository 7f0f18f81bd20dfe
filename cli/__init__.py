"""The commands: thin, one a module; what they do is in the other folders."""
