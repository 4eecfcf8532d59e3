"""The box's link to the cloud, and what goes over it."""
