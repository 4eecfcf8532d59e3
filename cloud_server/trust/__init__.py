"""Decides who somebody is, and keeps the state folder that says so."""
