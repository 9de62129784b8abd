"""Hostile text: families of payloads, the places where text is shown, and what would be noticed."""
