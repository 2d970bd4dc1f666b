"""The library's side of Airflow: a client of its REST API, connections and pools, announcements of sources."""
