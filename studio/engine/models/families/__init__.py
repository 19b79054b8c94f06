"""One module for each model family, named like it: what is loaded, encoded, predicted, decoded."""
