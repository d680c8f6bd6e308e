"""Profiles: what this machine can do (`machine`) and what a step does of it (`report`)."""
