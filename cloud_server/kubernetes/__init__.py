"""Optional access to a Kubernetes cluster: the nodes, services and endpoints that dials are routed by."""
