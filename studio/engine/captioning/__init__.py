"""Words for pictures: one module for each kind of captioner (see CAPTIONERS in core/catalog.py), and the work that uses them."""
