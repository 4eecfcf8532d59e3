"""Decides who somebody is, what they may see, and what is answered from what is kept."""
