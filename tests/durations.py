"""How long the suite's long files take: seconds of ``make test`` on two busy cores (``--durations=60`` tells anew).

The longest begin first, so that workers that run files side by side end together, and none is left alone with one.
"""

SECONDS = {
    "tests/e2e/test_airflow.py": 470,
    "tests/e2e/test_demo.py": 340,
    "tests/dags/test_runs.py": 250,
    "tests/e2e/test_pipeline.py": 105,
    "tests/chaos/test_library.py": 98,
    "tests/e2e/test_finetune.py": 74,
    "tests/e2e/test_image_urls.py": 68,
    "tests/history/test_history.py": 64,
    "tests/unit/operations/test_forecast.py": 61,
    "tests/e2e/test_takedown.py": 60,
    "tests/history/test_sentences.py": 55,
    "tests/unit/models/test_local.py": 44,
    "tests/unit/storage/test_log.py": 39,
    "tests/unit/sources/test_decoders.py": 38,
    "tests/integration/test_wheel.py": 38,
    "tests/dags/test_metrics.py": 37,
    "tests/integration/test_store_contract.py": 33,
    "tests/unit/inference/test_batch_session.py": 26,
    "tests/unit/reports/test_html_page.py": 25,
    "tests/unit/simulator/test_server.py": 25,
    "tests/unit/sources/test_builtin.py": 23,
    "tests/integration/test_races.py": 21,
    "tests/unit/operations/test_plan.py": 19,
    "tests/unit/finetune/test_run.py": 19,
    "tests/unit/finetune/test_kubernetes_backend.py": 18,
    "tests/dags/test_notes.py": 17,
    "tests/integration/test_transformers_serve.py": 16,
    "tests/integration/test_services.py": 15,
    "tests/unit/models/test_encoders.py": 13,
    "tests/integration/test_s3_dialects.py": 12,
}
