"""What the DAGs' tasks do: a library call each, with its receipt. Imported when a task runs, not when DAGs parse."""
