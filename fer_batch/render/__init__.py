"""Annotated copies of videos and images."""
