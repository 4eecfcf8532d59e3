"""Sessions and streams over carriers, and streams joined to sockets."""
