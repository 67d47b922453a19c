"""One module per chapter for what only that chapter shows, and what several chapters share."""
