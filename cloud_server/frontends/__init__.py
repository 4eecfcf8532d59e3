"""The ways in: HTTP CONNECT, static forwards and the fleet API."""
