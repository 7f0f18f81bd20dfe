"""The commands: thin, one a module. The other folders do their work."""
