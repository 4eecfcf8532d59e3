"""The agents: who has joined, who is connected, and their sessions."""
