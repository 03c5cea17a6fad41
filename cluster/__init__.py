"""The front door: the command line over every other room."""
