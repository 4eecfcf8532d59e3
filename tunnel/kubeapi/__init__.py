"""What both daemons need of the Kubernetes API. It knows nothing of tunnels or policy."""
