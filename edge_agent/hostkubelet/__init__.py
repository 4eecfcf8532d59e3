"""The kubelet API of a box without Kubernetes: exec, attach and logs on the host itself."""
