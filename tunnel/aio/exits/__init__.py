"""The exits of the tunnel: what may be reached from this end, the dial, and the record of each stream."""
