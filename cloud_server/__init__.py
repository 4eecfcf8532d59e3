"""The daemon in the cloud: it takes in the agents' tunnels and offers front ends that reach through them."""
