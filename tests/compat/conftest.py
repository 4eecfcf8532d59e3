"""Cases that people reported of tunnels like ours, each in a file named after its report (docs/compat.md lists them).

A test here drives real processes and real clients. What needs a cluster, a balancer, or more than some two seconds is
marked `e2e` and runs with `make e2e`; the rest runs with `make test`.
"""
