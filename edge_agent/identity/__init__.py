"""Who this box is: its key, its certificate, and how it gets and renews them."""
