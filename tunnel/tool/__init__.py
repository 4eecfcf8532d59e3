"""The operator's command, `longline`."""
