"""A real Kubernetes on this machine for the end-to-end tests: one control plane, and edge nodes that nothing can reach.

`kubernetes.py` puts it together. Nothing here knows of the tunnel, but for the tests that put one between the two.
"""
