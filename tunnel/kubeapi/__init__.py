"""The parts of the Kubernetes API that both daemons speak. They know nothing of tunnels or policy."""
