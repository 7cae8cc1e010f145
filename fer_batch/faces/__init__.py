"""Faces in frames: detected, tracked, cut out."""
