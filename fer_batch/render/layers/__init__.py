"""The layers of an annotated frame, one module each."""
