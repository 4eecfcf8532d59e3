"""Decides who may do what, by the compiled policy file. Nothing else in the server decides that."""
