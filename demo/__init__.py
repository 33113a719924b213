"""The example site of djpyfs, and what starts everything it needs on one machine."""
