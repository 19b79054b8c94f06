"""HOW it is computed: torch lives here and nowhere else. No gradio."""
