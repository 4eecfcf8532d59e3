"""Knows the agents: who has joined, who is connected, and their sessions. What clients ask for is not here."""
