"""Serves what kube-apiserver speaks to an egress proxy in GRPC mode: one call of ProxyService is one tunnel.

From below: `tunnel/aio/http` carries streams over a socket, `messages` and `call` make gRPC calls of them, `tunnel`
serves one call, `frontend` one socket.
"""
