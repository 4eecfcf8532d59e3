"""What a look at the node finds, before its components are led through the API proxy. Nothing is changed by it."""
