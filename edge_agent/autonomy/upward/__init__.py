"""Asks the real API server: connections, whether it is reached, and requests that are passed on."""
