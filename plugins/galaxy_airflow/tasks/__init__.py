"""The functions of the DAGs' tasks: each calls the library and returns a receipt.

Imported when a task runs, not when Airflow parses the DAGs.
"""
