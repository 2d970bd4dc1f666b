"""The connection of Airflow and the library: the tasks' functions, pages and links in the UI, schedules, triggers.

The library imports nothing from here.
"""
