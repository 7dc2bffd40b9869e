"""The user's own data: a folder with pictures, `labels.csv` and `schema.json`."""
