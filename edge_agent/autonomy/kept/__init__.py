"""What is kept of the API on this node, in memory and on the disk, and what keeps it current."""
