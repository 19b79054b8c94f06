"""Words for pictures: one module for each kind of captioner (see CAPTIONERS in spec/tables.py), and the work that uses them."""
