"""TCP, unix and TLS sockets, and what is spoken on them."""
