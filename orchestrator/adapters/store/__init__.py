"""What is kept on disk: records in SQLite."""
