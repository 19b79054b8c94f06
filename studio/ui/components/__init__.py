"""Parts of the page that several tabs use: widgets with their events."""
