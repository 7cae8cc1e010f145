"""Why a classifier sees an emotion: maps, their worth, pages."""
