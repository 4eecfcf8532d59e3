"""Streams within a session: their states, windows, budgets and turns."""
