"""gRPC: the calls that carry a session's packets, and how a box joins. Nothing outside this room imports gRPC."""
