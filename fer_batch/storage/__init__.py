"""Paths and URLs as one kind of place, leases on shared work, and downloads."""
