"""HTTP as front ends serve it: exchanges that do not say which version they came by."""
