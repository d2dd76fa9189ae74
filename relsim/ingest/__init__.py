"""Behind ``relsim.openie``: files to lines, lines to rows, rows to facts, and the report of what became of each line."""
