"""One run shared by many processes and machines."""
