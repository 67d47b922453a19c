"""The compendium's own code: small world, chapters and pipeline. It calls mmrlhf_core, never the reverse."""
