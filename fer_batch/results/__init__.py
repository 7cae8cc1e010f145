"""The output folder of a run: tables, their safe writing, and reading with pandas."""
