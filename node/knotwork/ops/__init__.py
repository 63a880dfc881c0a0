"""What may be asked of a node: ONE table (`table.TABLE`), read by every door."""
