"""Beam steps. They wire; the functions that work are in the rooms below."""
