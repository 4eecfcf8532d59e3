"""Reads a Kubernetes cluster, where there is one: the nodes, services, endpoints and pods that dials are routed by."""
