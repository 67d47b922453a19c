"""The book of the compendium: the executed chapters as static pages, and the results without running anything."""
