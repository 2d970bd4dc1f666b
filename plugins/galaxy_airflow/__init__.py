"""Between Airflow and the library: what tasks call, and what the UI gains. The library knows nothing of it."""
