"""The re-runnable training recipes of the bundled models; `recipes.run` is the entry point."""
