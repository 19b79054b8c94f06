"""What is shown, as HTML: one module a subject. No events."""
