"""How long the suite's long files take: seconds of ``make test`` on two busy cores (``--durations=60`` tells anew).

The longest begin first, so that workers that run files side by side end together, and none is left alone with one.
"""

SECONDS = {
    "tests/e2e/test_airflow.py": 600,
    "tests/e2e/test_demo.py": 510,
    "tests/e2e/test_pipeline.py": 230,
    "tests/dags/test_runs.py": 240,
    "tests/e2e/test_takedown.py": 120,
    "tests/e2e/test_finetune.py": 120,
    "tests/chaos/test_library.py": 97,
    "tests/e2e/test_image_urls.py": 94,
    "tests/history/test_history.py": 82,
    "tests/unit/storage/test_log.py": 40,
    "tests/dags/test_integrity.py": 32,
    "tests/unit/operations/test_plan.py": 22,
    "tests/unit/test_containers.py": 15,
    "tests/unit/finetune/test_kubernetes_backend.py": 15,
    "tests/integration/test_transformers_serve.py": 25,
    "tests/unit/models/test_local.py": 20,
    "tests/integration/test_s3_dialects.py": 20,
    "tests/integration/test_store_contract.py": 8,
    "tests/unit/operations/test_forecast.py": 8,
}
