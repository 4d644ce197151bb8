"""The sandbox image: its sources, its base, its build."""
