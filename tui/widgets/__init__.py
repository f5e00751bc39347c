"""Parts of the screens that know Textual and nothing of the daemon."""
