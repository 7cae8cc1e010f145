"""Prefect flows over fer_batch: they plan, map, name and report; the library does the work."""
