"""What an operator has of a running daemon: its admin socket, its record of what was done, its traces."""
