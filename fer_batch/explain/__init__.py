"""Why a classifier sees an emotion: maps, how faithful they are, pages."""
