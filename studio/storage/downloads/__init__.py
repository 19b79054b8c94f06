"""Downloads: a safe client, the sources, files that are not whole yet."""
