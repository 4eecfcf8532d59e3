"""The tunnel's shell on asyncio: carriers over gRPC, sockets, tasks, TLS, logs. It knows nothing of Kubernetes."""
