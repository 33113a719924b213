"""An application with models whose rows own files."""
