"""Measurements of speed, memory and accuracy; each writes a page of docs/."""
