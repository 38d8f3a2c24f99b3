"""Speculative methods of this package."""
