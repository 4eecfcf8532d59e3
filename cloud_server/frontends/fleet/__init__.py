"""The part of the Kubernetes API that makes boxes without Kubernetes look like nodes to kubectl."""
