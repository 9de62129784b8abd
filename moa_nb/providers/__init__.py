"""How each kind of model is spoken to. Wire formats are pure: record to JSON and back."""
