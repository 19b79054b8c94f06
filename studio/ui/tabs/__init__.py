"""One module a tab; `studio.ui.app.TABS` lists them."""
