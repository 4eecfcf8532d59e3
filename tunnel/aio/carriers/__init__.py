"""gRPC: the calls that carry a session's packets, and how a box joins. Nothing outside this room imports gRPC.

Before anything here imports it, it is told who is to wait for its sockets: the thread that grpc.aio has for its queue,
and not one of the event engine's, which would hand each message on to that one. With two switches of threads less on
each side, a round trip of 64 bytes took 0.39 ms instead of 0.54 (medians; context switches of a daemon for each: 6.9
instead of 10.3), and bulk was 6-12 % faster. The names are gRPC's own and may go with a release:
`tests/aio/carriers/test_polling.py` fails then.
"""

import os

# gRPC would follow its own list of exceptions, which is not curl's, also for a proxy that it was given (channel.py).
# Empty, this one stands before `no_proxy`.
os.environ.update(no_grpc_proxy="")
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
