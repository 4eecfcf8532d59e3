"""Who somebody is, and the state folder that says so."""
