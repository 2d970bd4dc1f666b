"""What Airflow needs of the library: its REST client, connections and pools, announcements of sources."""
