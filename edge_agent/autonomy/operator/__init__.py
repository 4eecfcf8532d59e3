"""The node's local operator: kubectl on the node without the cloud."""
