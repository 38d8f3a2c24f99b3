"""A sample plug-in of treewright."""
