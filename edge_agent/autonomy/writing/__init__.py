"""What is said while the API server is away, and what the cloud is told when it is back."""
