"""Configurations: TOML text to checked settings, settings to data and model, and run folders.

`tomlfile` reads the text and knows its lines, `schema` says what may stand in it, `reading` joins
the two, `data` and `building` make what it asks for, `folder` keeps a run.
"""
