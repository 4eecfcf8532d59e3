"""Certificates, names and join tokens, as both ends read them."""
