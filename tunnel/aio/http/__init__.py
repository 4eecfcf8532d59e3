"""Speaks HTTP: version 1.1 as server and client, version 2 as server, WebSockets, and the page of metrics.

A request of either version is served as an exchange, which does not say by which of them it came (exchange.py).
"""
