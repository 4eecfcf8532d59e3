"""ID tokens of an OpenID Connect issuer. Everything but `settings` loads the library that verifies them."""
