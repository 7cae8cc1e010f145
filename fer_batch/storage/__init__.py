"""Paths and URLs as one kind of place, claims on shared work, downloads."""
