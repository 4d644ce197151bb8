"""Docker Engine: found, installed, reached, and what runs sandboxes on it."""
