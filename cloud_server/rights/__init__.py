"""Who may do what: the policy file, compiled, and the one place that decides by it."""
