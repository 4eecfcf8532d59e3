"""`make demo`: the main job on a real box behind NAT, shown to a person."""
