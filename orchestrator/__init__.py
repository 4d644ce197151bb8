"""Every Python session in its own locked-down container."""

__version__ = "0.1.0"
