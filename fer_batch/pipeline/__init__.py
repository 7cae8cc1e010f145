"""From files to tables: what to do, readers, detection, classification, commit."""
