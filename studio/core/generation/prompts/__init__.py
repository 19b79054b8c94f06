"""What prompts say, by which grammar, and what is encoded at which step."""
