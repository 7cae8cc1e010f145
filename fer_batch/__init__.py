"""Batch facial emotion recognition: folders of videos and images in, emotion timelines out."""

__version__ = "0.1.0"
