"""The operator's command, `longline`: its verbs, the ways to ask a server, and what is shown."""
