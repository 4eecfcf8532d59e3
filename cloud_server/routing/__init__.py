"""Finds the way from the address that a client asks for to the agent that reaches it."""
