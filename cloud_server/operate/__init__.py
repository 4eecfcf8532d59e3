"""Shows operators what the server does, and lets them change it."""
