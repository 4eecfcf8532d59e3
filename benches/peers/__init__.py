"""Other tunnels, as cargo installs them, started as their own documentation says and measured as ours is."""
