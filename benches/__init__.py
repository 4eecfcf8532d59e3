"""Figures of the real thing: real daemons, real TLS, loopback; `python -m benches`. Nothing here is a test."""
