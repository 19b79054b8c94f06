"""Downloads: links, and what is behind one as a plan."""
