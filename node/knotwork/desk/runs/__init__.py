"""Workflows and their runs as those see them who ask; START HERE: `desk`."""
