"""The command `treewright`: one file per verb, imported only when its verb is typed."""
