"""The controller: reads the cluster, asks the planner, writes the journal, carries out. Wiring, no decisions."""
