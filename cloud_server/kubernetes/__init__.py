"""Optional access to a Kubernetes cluster: the nodes, services, endpoints and pods that dials are routed by."""
