"""The identity of this box: its key, its certificate, and how it gets and renews them."""
