"""So that children are started by the interpreter that runs us."""

from smartgrid_ops.cli import main

main()
