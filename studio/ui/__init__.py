"""What a person sees: gradio lives here and nowhere else. No torch."""
