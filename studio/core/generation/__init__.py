"""An image to be made: the request, its geometry and rules, the prompt grammar, A1111's text."""
