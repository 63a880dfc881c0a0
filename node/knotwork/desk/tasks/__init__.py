"""Durable tasks as those see them who ask; START HERE: `desk`."""
