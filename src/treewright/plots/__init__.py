"""Pictures from traces and comparisons. matplotlib is an extra and is imported only when something is drawn."""
