"""Video and image files: found, fetched, decoded, encoded."""
