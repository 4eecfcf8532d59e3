"""Who is who: the CA, certificates, join tokens, and the records of enrolled agents and users."""
