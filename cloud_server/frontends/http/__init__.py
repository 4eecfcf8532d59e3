"""Serves HTTP for front ends: as exchanges that do not say which version of HTTP they came by."""
