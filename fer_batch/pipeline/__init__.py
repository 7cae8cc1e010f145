"""From files to tables: plan, readers, detection, classification, commit."""
