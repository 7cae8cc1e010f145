"""The Python API: runs over folders, and single pictures."""
