"""Snapshots on disk: a SQLite file for each session, with its pieces and manifests."""
