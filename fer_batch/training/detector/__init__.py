"""Training of the face detector ``glance``."""
