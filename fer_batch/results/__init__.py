"""The output folder of a run: tables, their safe writing, reading with pandas."""
