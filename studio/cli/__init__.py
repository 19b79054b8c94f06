"""The commands: `studio …` in a terminal. One module a command; `main` lists them."""
