"""What `xp fetch` is made of: HTTP with patience, TAP and its jobs, the manifest of a fetch. Knows no option."""
