"""What model families differ in, as plain names and numbers."""
