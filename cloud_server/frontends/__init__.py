"""The ways in for clients: HTTP CONNECT, SOCKS5, static forwards, konnectivity and the fleet API; and what agents may
reach through the server. Neither policy nor routing is here.
"""
