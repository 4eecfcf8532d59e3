"""Lets a node live without the cloud: what it needs of the Kubernetes API is kept on it."""
