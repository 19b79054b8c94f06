"""From a request to a picture: the one denoising loop and what drives it."""
